"""What runs the files of deploy/ as they stand, on ports and in folders of the tests."""
