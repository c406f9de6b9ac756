"""Signs requests with Huawei Cloud's own signer: JSON lines in, the headers and the target to send out.

The Rust test that starts this generates the requests and verifies the signatures.
"""

import json
import sys

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

access, secret = sys.argv[1:]
signer = Signer(BasicCredentials(access, secret, "project"))
for line in sys.stdin:
    wanted = json.loads(line)
    request = SdkRequest(
        method=wanted["method"],
        schema="https",
        host=wanted["host"],
        resource_path=wanted["path"],
        query_params=[tuple(pair) for pair in wanted["query"]],
        header_params=dict(wanted["headers"]),
        body=wanted["body"].encode("utf-8"),
    )
    signed = signer.sign(request)
    # The SDK hands headers on as bytes in this encoding.
    headers = [[name, list(value.encode("iso-8859-1"))] for name, value in signed.header_params.items()]
    print(json.dumps({"target": signed.uri, "headers": headers}))
