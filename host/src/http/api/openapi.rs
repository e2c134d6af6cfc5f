//! The OpenAPI document of `/api/v1`, made from the handlers.

use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, SecurityRequirement};
use utoipa::{Modify, OpenApi as _};

use super::{commands, events, group, letters, resolve, tail, waiting};
use crate::http::answer::Problem;
use crate::http::health;

/// Name of the scheme of the token.
const TOKEN: &str = "token";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "host", description = "What an operator asks a host and its group, and commands to the host."),
    paths(
        health::status,
        group::group,
        group::versions,
        waiting::inbox,
        waiting::retries,
        letters::list,
        letters::one,
        events::events,
        tail::tail,
        commands::pause,
        commands::resume,
        commands::consumers,
        commands::reload,
        commands::rollback,
        commands::trust,
        resolve::replay,
        resolve::purge,
        document,
    ),
    components(schemas(Problem)),
    tags(
        (name = "reads", description = "Nothing is changed."),
        (name = "streams", description = "Server-sent events."),
        (name = "commands", description = "Each one is in the log of the host, with the address of whoever asked."),
    ),
    modifiers(&Common)
)]
struct Document;

/// What all operations have in common: the token, and the form of an error.
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bearer = bearer.description(Some("The token of the host. A host without a token needs none.")).build();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(bearer));
        for path in document.paths.paths.values_mut() {
            let operations = [&mut path.get, &mut path.post];
            operations.into_iter().flatten().for_each(add_common);
        }
    }
}

fn add_common(operation: &mut Operation) {
    let mut error = Response::new("an error");
    let content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    error.content.insert("application/json".to_owned(), RefOr::T(content));
    operation.responses.responses.insert("default".to_owned(), RefOr::T(error));
    let open = SecurityRequirement::default();
    operation.security = Some(vec![SecurityRequirement::new(TOKEN, [""; 0]), open]);
}

/// This document.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "reads",
    responses((status = 200, description = "the document", body = serde_json::Value))
)]
pub(super) async fn document() -> Json<OpenApi> {
    Json(Document::openapi())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_all_paths_and_no_others() {
        let document = Document::openapi();
        let documented: BTreeSet<&str> = document.paths.paths.keys().map(String::as_str).collect();
        let table = super::super::table();
        let served: BTreeSet<&str> = table.iter().map(|(path, _)| *path).collect();
        assert_eq!(documented, served);
    }
}
