"""Huawei Cloud's own SDK, unmodified, against a running keysweep.

usage: sdk.py ENDPOINT PROJECT INSTANCE ACCESS SECRET
       sdk.py requests < a JSON array of requests that are to be refused
       sdk.py models < a JSON array of answers, each with the name of its model

Prints one JSON document with what the SDK made of the answers; the Rust test that starts this asserts on it.
"""

import json
import re
import sys
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkdcs import v2
from huaweicloudsdkdcs.v2 import (
    CreateAutoExpireScanTaskRequest,
    DcsAsyncClient,
    DcsClient,
    ListGroupReplicationInfoRequest,
    ListInstancesRequest,
    ScanExpireKeyRequest,
    ShowExpireAutoScanConfigRequest,
    ShowExpireKeyScanInfoRequest,
    ShowInstanceRequest,
    ShowInstanceTopologyRequest,
    UpdateAutoScanConfigRequestBody,
    UpdateExpireAutoScanConfigRequest,
)

TIMEOUT_SECONDS = 60


def token_credentials(token, project):
    """Returns credentials that send a token in place of a signature, or nothing, as programs do that sign in with a password."""
    credentials = BasicCredentials("none", "none", project)
    sign = credentials.sign_request

    def show_token(request):
        if token:
            request.header_params["X-Auth-Token"] = token
        # The SDK signs nothing that has it already.
        request.header_params["Authorization"] = ""
        request = sign(request)
        del request.header_params["Authorization"]
        return request

    credentials.sign_request = show_token
    return credentials


def client(endpoint, credentials, kind=DcsClient):
    config = HttpConfig.get_default_config()
    config.timeout = (5, 20)
    return (
        kind.new_builder()
        .with_http_config(config)
        .with_credentials(credentials)
        .with_endpoint(endpoint)
        .build()
    )


def refusal(call):
    """What the SDK raises for a call that must be refused."""
    try:
        call()
    except (ClientRequestException, ServerResponseException) as error:
        return {
            "kind": type(error).__name__,
            "status": error.status_code,
            "code": error.error_code,
            "message": error.error_msg,
            "request_id": error.request_id,
        }
    return None


def sync_and_async(endpoint, credentials):
    """By its name, each client, and how it calls an operation."""
    dcs = client(endpoint, credentials)
    later = client(endpoint, credentials, DcsAsyncClient)
    return {
        "sync": lambda name, request: getattr(dcs, name)(request),
        "async": lambda name, request: getattr(later, name + "_async")(request).result(),
    }


def every_operation(call, instance, interval):
    """What the SDK makes of each operation: a scan that is waited for, another, its records, a configuration that is set."""
    created = call("create_auto_expire_scan_task", CreateAutoExpireScanTaskRequest(instance_id=instance))
    record, histories = ended(call, instance, created.id)
    again = call("scan_expire_key", ScanExpireKeyRequest(instance_id=instance))
    ended(call, instance, again.id)
    page = call("show_expire_key_scan_info", ShowExpireKeyScanInfoRequest(instance_id=instance, offset=1, limit=1))
    config = UpdateAutoScanConfigRequestBody(
        enable_auto_scan=True,
        first_scan_at="2999-01-01T00:00:00.000Z",
        interval=interval,
        timeout=7200,
        scan_keys_count=20000,
    )
    put = UpdateExpireAutoScanConfigRequest(instance_id=instance, body=config)
    return {
        "created": created.to_dict(),
        "record": record.to_dict(),
        "histories": {"total": histories.total, "count": histories.count},
        "again": again.to_dict(),
        "page": [record.id for record in page.records],
        "list": call("list_instances", ListInstancesRequest(name="cache", name_equal=True)).to_dict(),
        "show": call("show_instance", ShowInstanceRequest(instance_id=instance)).to_dict(),
        "topology": call("show_instance_topology", ShowInstanceTopologyRequest(instance_id=instance)).to_dict(),
        "groups": call("list_group_replication_info", ListGroupReplicationInfoRequest(instance_id=instance)).to_dict(),
        "put": call("update_expire_auto_scan_config", put).to_dict(),
        "config": call("show_expire_auto_scan_config", ShowExpireAutoScanConfigRequest(instance_id=instance)).to_dict(),
    }


def ended(call, instance, task):
    """The record of a task once it has ended, with the histories that it is in."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        histories = call("show_expire_key_scan_info", ShowExpireKeyScanInfoRequest(instance_id=instance))
        mine = [record for record in histories.records if record.id == task]
        assert mine, "a created task is in the histories at once"
        if mine[0].status in ("success", "failed"):
            return mine[0], histories
        assert time.monotonic() < deadline, f"the task stays {mine[0].status}"
        time.sleep(0.1)


def refusals(requests):
    """What both clients raise for each of these requests."""
    raised = []
    for request in requests:
        caller = request["caller"]
        path, _, query = request["path"].partition("?")
        if "access" in caller:
            credentials = BasicCredentials(caller["access"], caller["secret"], path.split("/")[2])
        else:
            credentials = token_credentials(caller.get("token"), path.split("/")[2])
        asked = {
            "method": request["method"],
            "resource_path": path,
            "query_params": [tuple(pair.split("=")) for pair in query.split("&") if pair],
            "body": request["body"] or None,
            "response_type": "ShowInstanceResponse",
        }

        def sync():
            headers = {**request["headers"], "X-Client": "sync"}
            return client(request["endpoint"], credentials).do_http_request(**asked, header_params=headers)

        def later():
            # Signatures change once a second, and one that was used for a change is not taken again: headers differ.
            headers = {**request["headers"], "X-Client": "async"}
            dcs = client(request["endpoint"], credentials, DcsAsyncClient)
            return dcs.do_http_request(**asked, header_params=headers, async_request=True).result()

        raised.append({"sync": refusal(sync), "async": refusal(later)})
    return raised


def deviations(declared, value, path):
    """Where a value differs from its declared type. The SDK itself decodes leniently; those for Go and Java do not."""
    simple = {"str": str, "int": int, "float": float, "bool": bool, "object": dict}
    elements = re.fullmatch(r"list\[(.+)\]", declared)
    if elements:
        if type(value) is not list:
            return [f"{path}: {type(value).__name__} instead of {declared}"]
        pairs = enumerate(value)
        return [found for index, one in pairs for found in deviations(elements[1], one, f"{path}[{index}]")]
    if declared in simple:
        # A bool is an int to isinstance.
        return [] if type(value) is simple[declared] else [f"{path}: {type(value).__name__} instead of {declared}"]
    model = getattr(v2, declared)
    if type(value) is not dict:
        return [f"{path}: {type(value).__name__} instead of {declared}"]
    types = {model.attribute_map[name]: declared for name, declared in model.openapi_types.items()}
    found = []
    for name, one in value.items():
        inside = f"{path}.{name}" if path else name
        found += deviations(types[name], one, inside) if name in types else [f"{inside}: not in {model.__name__}"]
    return found


def main():
    if sys.argv[1:] == ["models"]:
        answers = json.load(sys.stdin)
        print(json.dumps({one["path"]: deviations(one["model"], one["body"], "") for one in answers}))
        return
    if sys.argv[1:] == ["requests"]:
        print(json.dumps(refusals(json.load(sys.stdin))))
        return
    endpoint, project, instance, access, secret = sys.argv[1:]
    clients = sync_and_async(endpoint, BasicCredentials(access, secret, project))
    said = {
        name: every_operation(call, instance, interval)
        for (name, call), interval in zip(clients.items(), (1800, 3600))
    }
    print(json.dumps(said))


main()
