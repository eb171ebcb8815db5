from django.contrib.auth.decorators import login_required
from django.shortcuts import render


@login_required
def page(request, pk):
    return render(request, "shop/chat.html", {"pk": pk})
