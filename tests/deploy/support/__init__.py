"""Runs the files of deploy/ on the ports and in the folders of a test."""
