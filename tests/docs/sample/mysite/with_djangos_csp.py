from django.utils.csp import CSP

from mysite.settings import *  # noqa: F403
from mysite.settings import MIDDLEWARE, TEMPLATES

MIDDLEWARE += ["django.middleware.csp.ContentSecurityPolicyMiddleware"]
TEMPLATES[0]["OPTIONS"]["context_processors"] += ["django.template.context_processors.csp"]
SECURE_CSP = {"default-src": [CSP.SELF], "script-src": [CSP.SELF, CSP.NONCE]}
