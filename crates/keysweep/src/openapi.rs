//! The OpenAPI document, assembled from the surfaces' parts.

use utoipa::openapi::{
    HeaderBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, RefOr, ServerBuilder, Type,
    path::{Operation, ParameterIn, PathItem},
    security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme},
};

use crate::{api, dcs, iam};

/// Ids of the operations that need no credentials.
const ANONYMOUS: [&str; 2] = ["issue_token", "show_identity_version"];

/// The form of the ids in paths.
const ID_PATTERN: &str = "^([0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})$";

/// Returns the document of this version.
pub fn document() -> OpenApi {
    let licence = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("keysweep")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Reclaims the memory that expired keys still take in Redis and Valkey servers."))
        .license(Some(licence))
        .build();
    // Clients replace it by the address of their service, to which it is relative.
    let own = ServerBuilder::new().url("/").description(Some("The service that serves this document")).build();
    let mut document = OpenApiBuilder::new().info(info).servers(Some([own])).build();
    for surface in [dcs::openapi(), api::openapi(), iam::openapi()] {
        document.merge(surface);
    }
    let header = |name: &str, description: &str| {
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, description)))
    };
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", header("X-Auth-Token", "A token of POST /v3/auth/tokens."));
    components.add_security_scheme(
        "signature",
        header("Authorization", "SDK-HMAC-SHA256, the request signature of Huawei Cloud's SDKs; needs X-Sdk-Date."),
    );
    let no_scopes: [&str; 0] = [];
    document.security =
        Some(vec![SecurityRequirement::new("token", no_scopes), SecurityRequirement::new("signature", no_scopes)]);
    for path in document.paths.paths.values_mut() {
        operations(path).for_each(|operation| {
            allow_anonymous(operation);
            give_ids_their_form(operation);
            complete(operation);
        });
    }
    document
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch].into_iter().flatten()
}

/// Documents the form of the ids in an operation's path.
fn give_ids_their_form(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        if !parameter.name.ends_with("_id") || !matches!(parameter.parameter_in, ParameterIn::Path) {
            continue;
        }
        let form = ObjectBuilder::new().schema_type(Type::String).pattern(Some(ID_PATTERN)).build();
        parameter.schema = Some(form.into());
    }
}

/// Gives every response a description and the header X-Request-Id.
fn complete(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            if response.description.is_empty() {
                response.description = "Success".to_owned();
            }
            let text = ObjectBuilder::new().schema_type(Type::String).build();
            let header =
                HeaderBuilder::new().schema(Some(text)).description(Some("Id of the request in the service's log"));
            response.headers.insert("X-Request-Id".into(), header.build().into());
        }
    }
}

/// Documents that an operation needs no credentials.
fn allow_anonymous(operation: &mut Operation) {
    if operation.operation_id.as_deref().is_some_and(|id| ANONYMOUS.contains(&id)) {
        operation.security = Some(Vec::new());
    }
}
