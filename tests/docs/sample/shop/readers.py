from django.shortcuts import render


def page(request, name):
    return render(request, "shop/readers.html", {"topic": f"readers.{name}"})
