//! What concerns several instances of a project at once.

use keysweep::{
    model::{Status, Task},
    store::{ProjectPageRequest, ProjectTask},
};

use crate::conformance::{
    fresh::{Fresh, at, plain_instance, time},
    tasks::history,
};

on_every_engine!(tasks_of_a_project_are_filtered_and_paged_across_its_instances);

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
