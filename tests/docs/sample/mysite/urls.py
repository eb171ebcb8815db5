from django.urls import path

from shop import asynchronous, cards, chat, readers, renaming, reports

urlpatterns = [
    path("orders/<int:pk>/", cards.page, name="order"),
    path("orders/<int:pk>/card/", cards.card, name="card"),
    path("orders/<int:pk>/rename/", renaming.rename, name="rename"),
    path("orders/<int:pk>/remind/", asynchronous.remind, name="remind"),
    path("chats/<int:pk>/", chat.page, name="chat"),
    path("report/", reports.page, name="report"),
    path("pages/<slug:name>/", readers.page, name="page"),
]
