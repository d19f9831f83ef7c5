import redis
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from . import tickets


@login_required
def room(request):
    return render(request, "chat/room.html")


@never_cache
@require_POST
def token(request):
    """A ticket to the hall for whoever is logged in. The page asks for one whenever it connects.

    By POST, so that Django's CSRF check keeps other sites' pages from asking in somebody's name, and with a status where
    `login_required` would send a script to a form.
    """
    if not request.user.is_authenticated:
        return plain(401, "You are logged out.")
    name = request.user.get_username()
    if not tickets.fits(name):
        return plain(403, "Names in the hall have 1 to 32 characters, no colon, and are not like a guest's (guest-…). Yours does not fit.")
    try:
        return JsonResponse({"name": name, "token": tickets.issue(name)})
    except redis.RedisError:
        return plain(503, "There are no tickets at the moment.")


def plain(status, words):
    return HttpResponse(words, status=status, content_type="text/plain; charset=utf-8")
