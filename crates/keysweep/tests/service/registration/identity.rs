//! Projects, users and access keys.

use keysweep::{
    identity::IdentityError,
    instances::{InstanceError, NewInstance},
    model::Role,
};

use crate::registration::installation::{Installation, holds};

#[tokio::test]
async fn a_project_is_found_by_its_id_or_its_name() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let id = "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12";
    let project = opened.identity.add_project("shop", Some(id)).await.expect("added");
    assert_eq!(project.id, id, "as it was given");
    let twin = opened.identity.add_project("twin", Some(&id.replace('-', ""))).await.expect_err("the same id");
    assert!(twin.to_string().contains(id), "{twin}");
    // A name that equals another project's id does not hide that project.
    let namesake = opened.identity.add_project(id, None).await.expect("added");
    assert_eq!(opened.identity.project("shop").await.expect("found"), project);
    assert_eq!(opened.identity.project(id).await.expect("found"), project);
    assert_eq!(opened.identity.project(&namesake.id).await.expect("found"), namesake);
    assert_eq!(opened.identity.projects().await.expect("read").len(), 2);

    let instance = opened
        .add(id, NewInstance { name: "cache", url: "redis://h", id: Some(&"a".repeat(32)), ..NewInstance::default() })
        .await
        .expect("added");
    assert_eq!((instance.id.as_str(), instance.project_id.as_str()), ("a".repeat(32).as_str(), id));
    assert_eq!(opened.list("shop").await, [instance]);
    let error = opened.identity.project("absent").await.expect_err("absent").to_string();
    assert!(error.contains("\"absent\"") && error.contains("project list"), "{error}");
}

#[tokio::test]
async fn an_access_key_has_the_documented_form_and_its_secret_can_be_read_back() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let project = opened.identity.add_project("shop", None).await.expect("added");
    let user = opened.identity.add_user("ada", "shop", Role::Operator, None).await.expect("added");
    let (access, secret) = opened.identity.add_access_key("ada").await.expect("added");
    let (other_access, other_secret) = opened.identity.add_access_key("ada").await.expect("added");
    assert_eq!((access.len(), secret.expose().len()), (20, 40));
    assert!(access.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{access}");
    assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(access != other_access && secret.expose() != other_secret.expose());

    let holder = opened.identity.key_holder(&access).await.expect("read").expect("a holder");
    assert_eq!(holder.user, user);
    assert_eq!((holder.grants[0].project_id.as_str(), holder.grants[0].role), (project.id.as_str(), Role::Operator));
    assert_eq!(opened.identity.open_secret_key(&holder.key).expect("opens").expose(), secret.expose());
    assert!(opened.identity.key_holder("ABSENT").await.expect("read").is_none());
    assert!(!holds(&installation.contents(), secret.expose()));

    let error = opened.identity.add_access_key("bob").await.expect_err("no such user").to_string();
    assert!(error.contains("\"bob\"") && error.contains("user add"), "{error}");
    let error =
        opened.identity.add_user("bob", "absent", Role::Reader, None).await.expect_err("no such project").to_string();
    assert!(error.contains("\"absent\""), "{error}");
}

#[tokio::test]
async fn errors_name_the_field_its_value_and_the_remedy() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let project = opened.identity.add_project("shop", None).await.expect("added");
    opened.identity.add_user("ada", "shop", Role::Reader, None).await.expect("added");
    let instance = opened
        .add("shop", NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let long = "x".repeat(65);
    let text = |error: IdentityError| error.to_string();
    let instance_text = |error: InstanceError| error.to_string();
    let errors = [
        (
            opened.identity.add_project("shop", None).await.map(drop).map_err(text),
            ["project", "name", "\"shop\"", "another name"],
        ),
        (
            opened.identity.add_project("s", Some(&project.id)).await.map(drop).map_err(text),
            ["project", "id", &project.id, "another id"],
        ),
        (
            opened.identity.add_user("ada", "shop", Role::Admin, None).await.map(drop).map_err(text),
            ["user", "name", "\"ada\"", "another name"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance", "name", "\"cache\"", "another name"],
        ),
        (
            opened
                .add(
                    "shop",
                    NewInstance { name: "x", url: "redis://h", id: Some(&instance.id), ..NewInstance::default() },
                )
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance", "id", &instance.id, "another id"],
        ),
        (
            opened.identity.add_project("", None).await.map(drop).map_err(text),
            ["project name", "\"\"", "1 to 64", "characters"],
        ),
        (
            opened.identity.add_project(" x", None).await.map(drop).map_err(text),
            ["project name", "\" x\"", "1 to 64", "spaces"],
        ),
        (
            opened.identity.add_user(&long, "shop", Role::Admin, None).await.map(drop).map_err(text),
            ["user name", &long, "1 to 64", "characters"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "a\nb", url: "redis://h", id: None, ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance name", "\"a\\nb\"", "1 to 64", "control characters"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "x", url: "redis://h", id: Some("42"), ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance id", "\"42\"", "32 hexadecimal digits", "UUID"],
        ),
    ];
    for (result, parts) in errors {
        let error = result.expect_err(parts[2]);
        for part in parts {
            assert!(error.contains(part), "{part:?} in: {error}");
        }
    }
    assert_eq!(opened.list("shop").await, [instance]);
}
