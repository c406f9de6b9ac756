"""OpenStack's own clients, unmodified, against a running keysweep.

usage: openstack_clients.py BASE PROJECT USER_ID < the user's password

Prints one JSON document with what the clients made of the answers; the Rust test that starts this asserts on it.
"""

import contextlib
import io
import json
import logging
import sys

import openstack
from keystoneauth1 import session
from keystoneauth1.identity import generic, v3
from openstackclient.shell import OpenStackShell

DOMAIN = {"user_domain_name": "acme", "project_domain_name": "acme"}
REGION = "eu"


class Warnings(logging.Handler):
    """Collects what keystoneauth warns of: of versions, for example, that it had to guess."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def instances(auth):
    """The names of the instances, which are found through the catalog."""
    endpoint = {"service_type": "dcs", "interface": "public", "region_name": REGION}
    answer = session.Session(auth=auth).get("/instances", endpoint_filter=endpoint)
    return [instance["name"] for instance in answer.json()["instances"]]


def keystoneauth(base, project, user_id, password):
    """By its name, each way to sign in, and the instances that it leads to."""
    by_name = {"username": "ada", "password": password, "project_id": project, **DOMAIN}
    said = {
        f"generic {url}": instances(generic.Password(f"{base}{url}", **by_name))
        for url in ["", "/", "/v3", "/v3/"]
    }
    v3_url = f"{base}/v3"
    said["user by id"] = instances(v3.Password(v3_url, user_id=user_id, password=password, project_id=project))
    unscoped = v3.Password(v3_url, user_id=user_id, password=password, unscoped=True)
    token = unscoped.get_token(session.Session())
    exchanged = v3.Token(v3_url, token, project_name="shop", project_domain_name="acme")
    said["token"] = instances(exchanged)
    said["generic token"] = instances(generic.Token(base, token, project_id=project))
    domain = v3.Password(v3_url, user_id=user_id, password=password, domain_name="acme")
    said["domain"] = domain.get_access(session.Session()).domain_name
    return said


def sdk(base, password):
    """What openstacksdk finds: projects by the identity API, instances through the catalog."""
    connection = openstack.connect(
        auth_url=base, username="ada", password=password, project_name="shop", region_name=REGION, **DOMAIN
    )
    answer = connection.session.get("/instances", endpoint_filter={"service_type": "dcs", "region_name": REGION})
    return {
        "projects": [project.name for project in connection.identity.projects()],
        "instances": [instance["name"] for instance in answer.json()["instances"]],
    }


def command_line(base, password):
    """What the OpenStack command line prints, in its own process's terms: a catalog, a token, projects."""
    options = [
        "--os-auth-url", f"{base}/v3", "--os-username", "ada", "--os-password", password, "--os-project-name", "shop",
        "--os-user-domain-name", "acme", "--os-project-domain-name", "acme", "--os-region-name", REGION,
    ]

    def run(*arguments):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            code = OpenStackShell().run([*options, *arguments, "-f", "json"])
        assert code == 0, (arguments, printed.getvalue())
        return json.loads(printed.getvalue())

    return {
        "catalog": run("catalog", "list"),
        "token": run("token", "issue"),
        "projects": run("project", "list"),
    }


def main():
    base, project, user_id = sys.argv[1:]
    password = sys.stdin.read()
    warnings = Warnings()
    logging.getLogger("keystoneauth").addHandler(warnings)
    said = {
        "keystoneauth": keystoneauth(base, project, user_id, password),
        "sdk": sdk(base, password),
        "command_line": command_line(base, password),
    }
    print(json.dumps({**said, "warnings": warnings.messages}))


main()
