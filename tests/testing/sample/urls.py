from django.urls import path

from shop.views import ship

urlpatterns = [path("orders/<int:pk>/ship/", ship)]
