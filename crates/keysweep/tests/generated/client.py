"""A client that is generated from docs/openapi.json, against a running keysweep.

usage: client.py FOLDER-OF-THE-CLIENT BASE PROJECT USER PASSWORD URL-OF-A-SERVER

Prints one JSON object with what the client made of the answers; the Rust test that starts this asserts on it.
"""

import json
import sys
import time

folder, base, project, name, password, url = sys.argv[1:]
sys.path.insert(0, folder)

from keysweep_client import AuthenticatedClient, Client
from keysweep_client.api.dcs_v_2 import create_auto_expire_scan_task
from keysweep_client.api.iam_v_3 import issue_token
from keysweep_client.api.instances import (
    list_registered_instances,
    register_instance,
    remove_instance,
    show_registered_instance,
    test_instance,
)
from keysweep_client.api.tasks import show_task
from keysweep_client.models import (
    Auth,
    Identity,
    Method,
    Named,
    NewInstanceBody,
    Pace,
    Password,
    PasswordUser,
    ScopeObject,
    SignInBody,
    TaskStatus,
)

identity = Identity(methods=[Method.PASSWORD], password=Password(user=PasswordUser(name=name, password=password)))
sign_in = SignInBody(auth=Auth(identity=identity, scope=ScopeObject(project=Named(id=project))))
answer = issue_token.sync_detailed(client=Client(base_url=base), body=sign_in)
assert answer.parsed.token.project.id == project, answer
token = answer.headers["X-Subject-Token"]
client = AuthenticatedClient(base_url=base, token=token, prefix="", auth_header_name="X-Auth-Token")

new = NewInstanceBody(name="from python", url=url, pace=Pace.GENTLE)
registered = register_instance.sync(project, client=client, body=new)
listed = list_registered_instances.sync(project, client=client)
tested = test_instance.sync(project, registered.id, client=client)
created = create_auto_expire_scan_task.sync(project, registered.id, client=client)
while True:
    shown = show_task.sync(project, created.id, client=client)
    if shown.status not in (TaskStatus.WAITING, TaskStatus.RUNNING):
        break
    time.sleep(0.05)
remove_instance.sync_detailed(project, registered.id, client=client)
absent = show_registered_instance.sync(project, registered.id, client=client)
print(
    json.dumps(
        {
            "pace": registered.pace,
            "names": [instance.name for instance in listed.instances],
            "tested": tested.ok,
            "status": shown.status.value,
            "absent": absent.error.code,
        }
    )
)
