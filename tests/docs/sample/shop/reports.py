from django.contrib.auth.decorators import login_required
from django.shortcuts import render

from shop.topics import ReportTopic


@login_required
def page(request):
    return render(request, "shop/report.html", {"topic": ReportTopic(user=request.user.pk)})
