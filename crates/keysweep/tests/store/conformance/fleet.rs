//! What concerns several instances of a project at once.

use keysweep::{
    model::{Instance, Status, Task},
    store::{InstanceChanges, ProjectPageRequest, ProjectTask},
};

use crate::conformance::{
    fresh::{Fresh, assert_taken, at, plain_instance, time},
    tasks::history,
};

on_every_engine!(
    tasks_of_a_project_are_filtered_and_paged_across_its_instances,
    changes_of_several_instances_are_made_together_or_not_at_all,
);

async fn tasks_of_a_project_are_filtered_and_paged_across_its_instances(store: Fresh) {
    let project = store.project("shop").await;
    let mut instances = Vec::new();
    for name in ["one", "two"] {
        let instance = plain_instance(&project, name);
        store.add_instance(&instance).await.expect("added");
        instances.push(instance);
    }
    let mut all = Vec::new();
    for instance in &instances {
        for task in history(&store, instance).await {
            all.push(ProjectTask { task, instance_name: instance.name.clone() });
        }
    }
    let active = store.waiting(&instances[0], at(1_000)).await;
    all.push(ProjectTask { task: active, instance_name: "one".into() });
    // A task of another project appears in no page.
    let foreign = store.instance_of_its_own("elsewhere").await;
    store.waiting(&foreign, at(1_000)).await;
    all.sort_by_key(|one| -one.task.seq);

    let read = async |request: ProjectPageRequest| store.project_tasks(&project.id, &request).await.expect("read");
    let whole = ProjectPageRequest { limit: 100, ..ProjectPageRequest::default() };
    assert_eq!(read(whole.clone()).await, all);
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = read(ProjectPageRequest { before, limit: 4, ..whole.clone() }).await;
        let Some(last) = page.last() else { break };
        before = Some(last.task.seq);
        pages.extend(page);
    }
    assert_eq!(pages, all);

    let kept = |keep: &dyn Fn(&Task) -> bool| all.iter().filter(|one| keep(&one.task)).cloned().collect::<Vec<_>>();
    let failed = read(ProjectPageRequest { status: Some(Status::Failed), ..whole.clone() }).await;
    assert_eq!((failed.len(), failed), (10, kept(&|task| task.status == Status::Failed)));
    let since = read(ProjectPageRequest { since: Some(time(71)), ..whole.clone() }).await;
    let is_since = |task: &Task| task.finished_at.is_none_or(|finished| finished >= time(71));
    assert_eq!((since.len(), since), (7, kept(&is_since)), "three of each instance, and the active one");
    let of_two = vec![instances[1].id.clone(), foreign.id.clone()];
    let of_two = read(ProjectPageRequest { instance_ids: Some(of_two), ..whole.clone() }).await;
    assert_eq!((of_two.len(), of_two), (10, kept(&|task| task.instance_id == instances[1].id)));
    assert_eq!(read(ProjectPageRequest { instance_ids: Some(vec![]), ..whole }).await, []);
}

async fn changes_of_several_instances_are_made_together_or_not_at_all(store: Fresh) {
    let project = store.project("shop").await;
    let instance = |name: &str| plain_instance(&project, name);
    let (old, other, busy) = (instance("old"), instance("other"), instance("busy"));
    for instance in [&old, &other, &busy] {
        store.add_instance(instance).await.expect("added");
    }
    store.waiting(&busy, at(0)).await;
    let renamed = Instance { name: "renamed".into(), ..old.clone() };
    let names = async || -> Vec<String> {
        store.instances(&project.id).await.expect("read").into_iter().map(|instance| instance.name).collect()
    };
    let before = names().await;
    let all = InstanceChanges {
        added: vec![instance("new")],
        changed: vec![(old.clone(), renamed)],
        removed: vec![other.clone(), busy.clone()],
    };
    assert_eq!(store.change_instances(&all).await.expect("answered"), Some("busy".into()), "it has an active task");
    assert_eq!(names().await, before);
    let taken = InstanceChanges {
        added: vec![Instance { id: "0".repeat(32), ..busy.clone() }],
        removed: vec![other.clone()],
        ..all.clone()
    };
    assert_taken(store.change_instances(&taken).await, "instance", "name");
    assert_eq!(names().await, before);
    let possible = InstanceChanges { removed: vec![other], ..all };
    assert_eq!(store.change_instances(&possible).await.expect("changed"), None);
    assert_eq!(names().await, ["busy", "new", "renamed"]);
}
