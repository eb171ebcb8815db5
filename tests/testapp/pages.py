"""Pages with elements and htmx, and their views."""

import secrets
from datetime import timedelta
from pathlib import Path
from string import Template

import django_htmx
from django.contrib.auth import get_user_model, login
from django.http import FileResponse, HttpRequest, HttpResponse
from django.template import engines
from django.urls import path

from realtime import log
from realtime.auth import make_token
from realtime.publishing import publish

HTMX = Path(django_htmx.__file__).parent / "static" / "django_htmx"
NODE_MODULES = Path(__file__).parents[2] / "js" / "node_modules"

PAGE = """<!doctype html>
<title>A page with elements</title>
<link rel="icon" href="data:,">
<meta name="htmx-config" content='{"includeIndicatorStyles": false, "includeIndicatorCSS": false,
  "selfRequestsOnly": false, "mode": "cors"}'>
{% load realtime %}{% if client %}{% realtime_script %}{% endif %}
{% if twice %}
<script type="module" nonce="{{ csp_nonce }}" src="/static/realtime/realtime.js?again"></script>
{% endif %}
{% if htmx %}<script src="/htmx-{{ htmx }}.js" nonce="{{ csp_nonce }}"></script>{% endif %}
<script type="module" nonce="{{ csp_nonce }}">
  // Each DOM event at the document: its type, its target, and its data or topic.
  window.heard = [];
  window.warned = [];
  const warn = console.warn;
  console.warn = (...words) => { warned.push(words); warn(...words); };
  const hear = ({type, target, detail}) => {
    heard.push([type, target.id, detail.data ?? detail.topic]);
  };
  for (const name of ["shipped", "paid", "reset"]) {
    document.addEventListener("realtime:" + name, hear);
    document.addEventListener("realtime-" + name, hear);
  }
  document.addEventListener("realtime-denied", hear);
  const options = new URLSearchParams(location.search);
  document.addEventListener("realtime-reset", () => {
    sessionStorage.resets = Number(sessionStorage.resets ?? 0) + 1;
    if (options.has("reload")) location.reload();
  });
</script>
<body>{{ html|safe }}</body>
"""


def _page(request: HttpRequest, **values: object) -> HttpResponse:
    nonce = secrets.token_urlsafe()
    template = engines["django"].from_string(PAGE)
    text = template.render({"csp_nonce": nonce, "client": True} | values, request)
    policy = f"default-src 'self'; script-src 'nonce-{nonce}'; img-src data:"
    policy += "; connect-src 'self' http://localhost:*"
    return HttpResponse(text, headers={"Content-Security-Policy": policy})


def elements(request: HttpRequest) -> HttpResponse:
    """Show the markup in ?html, with the client, ?without it or with it ?twice."""
    client, twice = "without" not in request.GET, "twice" in request.GET
    return _page(request, html=request.GET.get("html", ""), client=client, twice=twice)


RENDERED = """<!doctype html>
<title>A page that shows the state at its request</title>
<link rel="icon" href="data:,">
{% load realtime %}
<script type="module" nonce="{{ csp_nonce }}">
  window.heard = [];
  for (const kind of ["realtime:counted", "realtime-reset"]) {
    document.addEventListener(kind, ({detail}) => heard.push(detail.data ?? kind));
  }
</script>
{% realtime_script transport=transport %}
{% realtime_subscribe topic %}
<p id="count">{{ count }}</p>
"""


def rendered(request: HttpRequest, topic: str) -> HttpResponse:
    """Show the number of events, and follow from the time at which this request began."""
    nonce = secrets.token_urlsafe()
    values = {
        "count": len(log.history(topic, last=1000)),
        "csp_nonce": nonce,
        "topic": topic,
        "transport": request.GET.get("transport"),
    }
    text = engines["django"].from_string(RENDERED).render(values, request)
    policy = f"default-src 'self'; script-src 'nonce-{nonce}'; img-src data:"
    return HttpResponse(text, headers={"Content-Security-Policy": policy})


def publish_event(request: HttpRequest, topic: str, event: str) -> HttpResponse:
    """Publish an event with ?data; answer with its cursor."""
    exclude = request if "exclude" in request.GET else None
    published = publish(topic, event, request.GET.get("data"), exclude=exclude)
    assert published is not None
    return HttpResponse(str(published.cursor))


FRAGMENT = Template("""<p id="count">$count</p>
<realtime-topic id="late" name="$topic" on="paid" since="$cursor"></realtime-topic>""")


def fragment(request: HttpRequest, topic: str) -> HttpResponse:
    """Show the number of events, and follow from two events before the newest."""
    history = log.history(topic, last=1000)
    cursor = history[-3].cursor
    return HttpResponse(FRAGMENT.substitute(count=len(history), topic=topic, cursor=cursor))


HTML = Template("""
<realtime-topic id="first" name="$topic" last="0"></realtime-topic>
<div id="orders" hx-get="/fragment/$topic/" hx-trigger="realtime:shipped from:body"></div>
<button id="own" hx-get="/tell/$topic/paid/?exclude&data=own" hx-swap="none">own</button>
<button id="seen" hx-get="/seen/" hx-target="#answer">seen</button>
<button id="abroad" hx-get="$abroad/seen/" hx-target="#answer">abroad</button>
<div id="answer"></div>
""")


def htmx(request: HttpRequest, version: int, topic: str) -> HttpResponse:
    """Swap fragments at "shipped"; "localhost" is a different site from "127.0.0.1"."""
    abroad = f"http://localhost:{request.get_port()}"
    return _page(request, htmx=version, html=HTML.substitute(topic=topic, abroad=abroad))


def seen(request: HttpRequest) -> HttpResponse:
    """Answer with the request's origin header, also to pages of other sites."""
    headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}
    return HttpResponse(request.headers.get("X-Realtime-Origin", "none"), headers=headers)


def sign_in(request: HttpRequest, username: str) -> HttpResponse:
    """Sign in without a password, and answer with the user's primary key."""
    user, _ = get_user_model().objects.get_or_create(username=username)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponse(str(user.pk))


def token(request: HttpRequest, username: str) -> HttpResponse:
    """Answer with a token that is valid for ?seconds."""
    user, _ = get_user_model().objects.get_or_create(username=username)
    lifetime = timedelta(seconds=float(request.GET.get("seconds", 60)))
    return HttpResponse(make_token(user, expires=lifetime))


FRAMEWORK = """<!doctype html>
<title>A page with a framework</title>
<link rel="icon" href="data:,">
{% load realtime %}{% realtime_script %}
<script type="module" nonce="{{ csp_nonce }}">
  window.heard = [];
  window.follow = () => realtime.subscribe("{{ topic }}", {since: "{{ since }}"});
  document.addEventListener("alpine:init", () => {
    Alpine.data("page", () => ({
      order: follow(), client: realtime, stop: null, add: (data) => heard.push(data),
    }));
    Alpine.data("topic", follow);
    Alpine.data("client", () => realtime);
  });
</script>
<script defer src="/node_modules/{{ library }}" nonce="{{ csp_nonce }}"></script>
<body>{{ html|safe }}</body>
"""


def framework(request: HttpRequest, topic: str) -> HttpResponse:
    """Show the markup in ?html with a ?library of js/node_modules, which may evaluate strings."""
    nonce = secrets.token_urlsafe()
    values = {"csp_nonce": nonce, "topic": topic, "since": str(log.head(topic))}
    values |= {name: request.GET[name] for name in ("html", "library")}
    text = engines["django"].from_string(FRAMEWORK).render(values, request)
    policy = f"default-src 'self'; script-src 'nonce-{nonce}' 'unsafe-eval'; img-src data:"
    return HttpResponse(text, headers={"Content-Security-Policy": policy})


def node_module(request: HttpRequest, name: str) -> FileResponse:
    return FileResponse((NODE_MODULES / name).open("rb"), content_type="text/javascript")


def script(request: HttpRequest, version: int) -> FileResponse:
    return FileResponse(
        (HTMX / f"htmx-{version}.min.js").open("rb"), content_type="text/javascript"
    )


urlpatterns = [
    path("elements/", elements),
    path("rendered/<str:topic>/", rendered),
    path("tell/<str:topic>/<str:event>/", publish_event),
    path("fragment/<str:topic>/", fragment),
    path("htmx/<int:version>/<str:topic>/", htmx),
    path("framework/<str:topic>/", framework),
    path("node_modules/<path:name>", node_module),
    path("seen/", seen),
    path("sign-in/<str:username>/", sign_in),
    path("token/<str:username>/", token),
    path("htmx-<int:version>.js", script),
]
