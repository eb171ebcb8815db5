"""The pages of the sample project."""

from django.urls import path

from shop import views

urlpatterns = [path("", views.inbox), path("report/", views.report)]
