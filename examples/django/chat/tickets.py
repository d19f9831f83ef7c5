"""Tickets to the hall: a token in Redis under a person's name, for which the hall looks when the person knocks."""

import logging
import re
import secrets

import redis
from django.conf import settings

log = logging.getLogger(__name__)

# One pool a process. No connection is opened before it is needed, and a Redis that hangs holds up no worker for long.
store = redis.Redis.from_url(
    settings.HALL_REDIS, decode_responses=True, socket_connect_timeout=2, socket_timeout=2
)


def key(name):
    """As the hall's --ticket-key has it."""
    return f"ChatroomToken{name}"


def fits(name):
    """Whether somebody can be called so in the hall. Django's usernames can be too long, or look like a guest's id there."""
    if re.fullmatch("guest-[0-9a-fA-F]*", name):
        return False
    return 1 <= len(name) <= 32 and ":" not in name and not name.startswith(("!", "/", "~"))


def issue(name):
    """A ticket for `name`: the one that is still good, with its time begun anew, or a new one.

    A name has one ticket. Would every call replace it, two tabs of one person that lose their node at the same moment
    would take it from each other: one of them would come to the hall with what the other's call has just overwritten.
    """
    lifetime = settings.HALL_TICKET_SECONDS
    token = store.getex(key(name), ex=lifetime)
    if token is None:
        token = secrets.token_urlsafe(32)
        # SET … NX GET: where another call was faster, its ticket is the one.
        token = store.set(key(name), token, ex=lifetime, nx=True, get=True) or token
    return token


def revoke_at_logout(sender, user, **kwargs):
    """Who logs out takes the ticket along."""
    if user is None:
        return
    try:
        store.delete(key(user.get_username()))
    except redis.RedisError as error:
        log.warning("a ticket could not be taken back and runs out by itself: %s", error)
