//! The OpenAPI document: what the doors say of themselves, in one.

use utoipa::openapi::{
    InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder,
    path::PathItem,
    security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
};

use crate::{api, dcs, iam};

/// The document of this version.
pub fn document() -> OpenApi {
    let licence = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("keysweep")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Releases the memory that expired keys still hold in Redis and Valkey servers."))
        .license(Some(licence))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    for door in [dcs::openapi(), api::openapi(), iam::openapi()] {
        document.merge(door);
    }
    let header = |name: &str, description: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, description)))
    };
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", header("X-Auth-Token", "A token of POST /v3/auth/tokens."));
    components.add_security_scheme(
        "signature",
        header("Authorization", "SDK-HMAC-SHA256, as Huawei Cloud's SDKs sign; X-Sdk-Date goes with it."),
    );
    let no_scopes: [&str; 0] = [];
    document.security =
        Some(vec![SecurityRequirement::new("token", no_scopes), SecurityRequirement::new("signature", no_scopes)]);
    document.paths.paths.values_mut().for_each(open_sign_in);
    document
}

/// Whoever signs in has no token yet.
fn open_sign_in(path: &mut PathItem) {
    if let Some(issue) = path.post.as_mut().filter(|operation| operation.operation_id.as_deref() == Some("issue_token"))
    {
        issue.security = Some(Vec::new());
    }
}
