//! Which component depends on which: the graph as it is known, and the part of it that people give.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use opspilot_enrichers::topology::{ID, ReplaceError, TopologyDesk};
use opspilot_kernel::{
    error::ErrorKind,
    time::Timestamp,
    topology::{About, BadName, BlastRadius, ComponentName, Edge, Graph, MAX_NAME, Reach, Walk},
};
use serde::{Deserialize, Serialize};

use super::{
    body::{Body, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    state::AppState,
};

/// What is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// One component: then what has to do with it.
    component: Option<String>,
}

/// A component.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ComponentItem {
    name: String,
    /// What it is called where there is room.
    title: Option<String>,
    /// Who answers for it.
    owner: Option<String>,
}

/// An edge: `from` depends on `to`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct EdgeItem {
    from: String,
    to: String,
    /// Where it is known from: `configuration`, `api`, `signals`.
    origins: Vec<&'static str>,
    /// Whether it goes when signals no longer show it.
    ages_out: bool,
    /// When signals showed it first, by receipt.
    #[schema(value_type = Option<String>)]
    first_seen: Option<Timestamp>,
    /// When signals showed it last, to the minute.
    #[schema(value_type = Option<String>)]
    last_seen: Option<Timestamp>,
}

/// The graph.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Shown {
    /// How often people's part of it was replaced; also the `ETag`.
    revision: u64,
    components: Vec<ComponentItem>,
    edges: Vec<EdgeItem>,
}

/// A component, and how many edges away it is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct HopItem {
    component: String,
    hops: usize,
}

/// Components, the nearest first: at most 1,000, at most 8 edges away.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Reached {
    items: Vec<HopItem>,
    /// There are more.
    more: bool,
}

/// How many components a failure may affect.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Radius {
    /// Those that depend on it directly.
    direct: usize,
    /// All that depend on it.
    total: usize,
    /// How many at each distance; the first are the direct ones.
    by_hop: Vec<usize>,
    /// There are more, further away.
    more: bool,
}

/// What has to do with one component.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Surroundings {
    revision: u64,
    component: ComponentItem,
    /// The edges that begin or end at it.
    edges: Vec<EdgeItem>,
    depends_on: Reached,
    dependents: Reached,
    blast_radius: Radius,
}

/// People's part of the graph, as a whole.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    edges: Vec<StatedEdge>,
    #[serde(default)]
    components: Vec<StatedComponent>,
}

/// An edge: `from` depends on `to`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatedEdge {
    from: String,
    to: String,
}

/// What people say of a component.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatedComponent {
    name: String,
    /// What it is called where there is room.
    title: Option<String>,
    /// Who answers for it.
    owner: Option<String>,
}

/// What is stored now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Taken {
    revision: u64,
    components: usize,
    edges: usize,
}

fn component(graph: &Graph, name: &ComponentName) -> ComponentItem {
    let About { title, owner } = graph.about(name.as_str()).cloned().unwrap_or_default();
    ComponentItem { name: name.to_string(), title, owner }
}

fn edge(edge: Edge<'_>) -> EdgeItem {
    let known = edge.known;
    let origins = [("configuration", known.configured), ("api", known.by_api), ("signals", known.seen.is_some())];
    EdgeItem {
        from: edge.from.to_string(),
        to: edge.to.to_string(),
        origins: origins.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
        ages_out: known.ages_out(),
        first_seen: known.seen.map(|seen| seen.first),
        last_seen: known.seen.map(|seen| seen.last),
    }
}

fn reached(walk: &Walk<'_>) -> Reached {
    let items = walk.found.iter().map(|hop| HopItem { component: hop.component.to_string(), hops: hop.hops });
    Reached { items: items.collect(), more: walk.more }
}

async fn desk(state: &AppState) -> ApiResult<TopologyDesk> {
    state.control.topology().await.ok_or_else(|| {
        ApiError::new(ErrorKind::Unavailable, "unavailable", format!("{ID} does not run, and nothing else knows what depends on what"))
    })
}

fn tag(revision: u64) -> header::EntityTag {
    header::EntityTag::new_strong(revision.to_string())
}

/// The dependency graph; with `component`, what depends on it, on what it depends, and how many a failure of it may affect.
#[utoipa::path(get, path = "/api/topology", tag = "topology", params(Asked), responses(
    (status = 200, description = "The graph (`Shown`), or what has to do with the component (`Surroundings`)", body = serde_json::Value),
    (status = 404, description = "No such component", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, query: Query<Asked>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let desk = desk(&state).await?;
    let (graph, revision) = (desk.graph(), desk.revision());
    let mut answer = HttpResponse::Ok();
    answer.insert_header(header::ETag(tag(revision)));
    let Some(wanted) = query.0.component else {
        let components = graph.components().map(|name| component(&graph, name)).collect();
        return Ok(answer.json(Shown { revision, components, edges: graph.edges().map(edge).collect() }));
    };
    let name = graph.component(&wanted).ok_or_else(|| ApiError::not_found(format!("component {wanted:?}")))?;
    let dependents = graph.dependents(&wanted, Reach::default());
    let radius = BlastRadius::from(&dependents);
    Ok(answer.json(Surroundings {
        revision,
        component: component(&graph, name),
        edges: graph.edges_of(&wanted).map(edge).collect(),
        depends_on: reached(&graph.depends_on(&wanted, Reach::default())),
        dependents: reached(&dependents),
        blast_radius: Radius { direct: radius.direct(), total: radius.total(), more: radius.more, by_hop: radius.by_hop },
    }))
}

/// Collects what is wrong with a body, place by place.
struct Wrong(ApiError, bool);

impl Wrong {
    fn say(&mut self, at: String, code: &str, detail: String) {
        let error = std::mem::replace(&mut self.0, ApiError::new(ErrorKind::Invalid, "invalid", ""));
        *self = Wrong(error.at(at, code, detail), true);
    }

    fn name(&mut self, at: String, text: &str) -> Option<ComponentName> {
        ComponentName::new(text).map_err(|error: BadName| self.say(at, "bad_name", error.to_string())).ok()
    }

    fn text(&mut self, at: String, text: Option<String>) -> Option<String> {
        let text = text?;
        if text.trim().is_empty() || text.chars().count() > MAX_NAME {
            self.say(at, "bad_length", format!("must have 1 to {MAX_NAME} characters"));
        }
        Some(text)
    }
}

type Checked = (BTreeMap<ComponentName, About>, BTreeSet<(ComponentName, ComponentName)>);

fn check(stated: Stated) -> ApiResult<Checked> {
    let mut wrong = Wrong(ApiError::new(ErrorKind::Invalid, "invalid", "the topology is not valid; nothing changed"), false);
    let (mut components, mut edges) = (BTreeMap::new(), BTreeSet::new());
    for (place, edge) in stated.edges.into_iter().enumerate() {
        let ends = (wrong.name(format!("/edges/{place}/from"), &edge.from), wrong.name(format!("/edges/{place}/to"), &edge.to));
        let (Some(from), Some(to)) = ends else { continue };
        if from == to {
            wrong.say(format!("/edges/{place}/to"), "self_edge", "a component does not depend on itself".to_owned());
        } else if !edges.insert((from, to)) {
            wrong.say(format!("/edges/{place}"), "duplicate", "this edge was named before".to_owned());
        }
    }
    for (place, said) in stated.components.into_iter().enumerate() {
        let at = |field: &str| format!("/components/{place}/{field}");
        let about = About { title: wrong.text(at("title"), said.title), owner: wrong.text(at("owner"), said.owner) };
        let Some(name) = wrong.name(at("name"), &said.name) else { continue };
        if components.insert(name, about).is_some() {
            wrong.say(at("name"), "duplicate", "this component was named before".to_owned());
        }
    }
    if wrong.1 { Err(wrong.0) } else { Ok((components, edges)) }
}

/// The revision that the caller has seen, if they say so.
fn expected(request: &HttpRequest) -> ApiResult<Option<u64>> {
    let Some(value) = request.headers().get(header::IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let revision = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    let wrong = || ApiError::new(ErrorKind::Malformed, "malformed", "If-Match is not an ETag that GET /api/topology gave");
    revision.map(Some).ok_or_else(wrong)
}

/// Replaces people's part of the graph as a whole; what is configured and what signals show stays. With `If-Match`, only if
/// nobody replaced it since.
#[utoipa::path(put, path = "/api/topology", tag = "topology", request_body = Stated,
    params(("If-Match" = Option<String>, Header, description = "The `ETag` that `GET` gave")),
    responses(
        (status = 200, description = "Stored", body = Taken),
        (status = 409, description = "Somebody replaced it meanwhile", body = ProblemBody),
        (status = 422, description = "Not valid, or too much; nothing changed", body = ProblemBody),
    ))]
pub async fn put(caller: Guard<Operator>, request: HttpRequest, body: Body<Stated>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let expected = expected(&request)?;
    let (components, edges) = check(body.value)?;
    let counts = (components.len(), edges.len());
    let desk = desk(&state).await?;
    let by = caller.actor();
    // a client that hangs up must not leave the stored graph and the one that is shown apart
    let replaced = tokio::spawn(async move { desk.replace(components, edges, expected, by).await });
    let revision = match replaced.await.map_err(ApiError::internal)? {
        Ok(revision) => revision,
        Err(ReplaceError::TooMuch(why)) => return Err(ApiError::invalid("", "too_much", why)),
        Err(ReplaceError::Ledger(error)) => return Err(error.into()),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header(header::ETag(tag(revision)));
    Ok(answer.json(Taken { revision, components: counts.0, edges: counts.1 }))
}
