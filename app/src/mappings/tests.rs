use super::{NotFound, SHIPPED, find, parse, test::test};
use crate::cli::MappingsTest;
use domain::Timestamp;
use std::{fs, path::Path};

/// What the shipped mapping makes of its sample, and whether all of it is good.
fn sample(name: &str, routing_key: Option<&str>) -> (bool, String) {
    let path = format!("{}/../mappings/samples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let arguments = MappingsTest {
        file: name.to_owned(),
        sample: path.clone().into(),
        routing_key: routing_key.map(str::to_owned),
        headers: Vec::new(),
        content_type: None,
    };
    let mut out = Vec::new();
    let good = test(&arguments, fs::read(path).unwrap(), Timestamp::new(1_800_000_000, 0), &mut out).unwrap();
    (good, String::from_utf8(out).unwrap())
}

#[test]
fn the_shipped_mappings_make_of_their_samples_what_the_docs_say() {
    for (name, routing_key) in [
        ("event", Some("john.doe.event.created")),
        ("openmeter", None),
        ("payment", None),
        ("purchase", None),
        ("task", None),
    ] {
        insta::assert_snapshot!(name, sample(name, routing_key).1);
    }
}

#[test]
fn an_event_belongs_to_the_user_before_it_whatever_dots_the_name_holds() {
    for (key, tenant) in [
        ("ada.event.updated", "ada"),
        ("john.doe.event.deleted", "john.doe"),
        ("a.event.created.event.created", "a.event.created"),
    ] {
        let (good, shown) = sample("event", Some(key));
        assert!(good && shown.contains(&format!("tenant       {tenant}\n")), "{key}: {shown}");
    }
    for key in ["ada.event.archived", "ada.invoice.created", "event.created", ".event.created", "created", ""]
    {
        assert!(!sample("event", Some(key)).0, "{key}");
    }
    assert!(!sample("event", None).0);
}

#[test]
fn all_faults_of_a_mapping_are_told_at_once_with_their_lines() {
    let text = r#"description = 7
mesage = "cloudevents"
checks = [{ routing_key = 0 }]

[pulse]
tenant = { pointer = "customer" }
product_sku = { pointer = "/a", header = "b" }
use_unity = "KB"
identity = "cloudevent"
occurred_at = { attribute = "time", format = "unix" }
SKU = { constant = "x" }

[columns]
Title = { pointer = "/title" }
price = { pointer = "/price", type = "float" }
paid = { constant = "true", type = "boolean", optional = "yes", format = "rfc3339" }
raw = { header = "x", type = "json" }
"#;
    let told = parse::mapping("mappings/my.toml", "my", text).unwrap_err();
    insta::assert_snapshot!("faults", told.join("\n"));
    let told = parse::mapping("f", "f", "[pulse]\ntenant = ").unwrap_err();
    assert!(told.len() == 1 && told[0].starts_with("f, line 2: is not TOML: "), "{told:?}");
    let rest = "[pulse]\ntenant = {constant=\"t\"}\nproduct_sku = {attribute=\"type\"}\nuse_unity = {constant=\"u\"}\n\
                identity = \"none\"\nused_amount = {constant=0}\n";
    let told = parse::mapping("f", "f", rest).unwrap_err();
    assert!(
        told.iter().any(|fault| fault.contains("line 6: used_amount must be greater than zero")),
        "{told:?}"
    );
    assert!(told.iter().any(|fault| fault.contains("add message = \"cloudevents\"")), "{told:?}");
}

#[test]
fn a_file_wins_over_a_shipped_mapping_and_a_path_names_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = SHIPPED.iter().find(|(name, _)| *name == "task").unwrap().1;
    let unit = |name: &str| find(name, folder.path()).map(|mapping| mapping.use_unity.pick.to_string());
    assert_eq!(unit("task").unwrap(), "constant \"task\"");
    fs::create_dir(folder.path().join("mappings")).unwrap();
    for (file, unit) in [("mappings/task.toml", "job"), ("mappings/own.toml", "own"), ("other.toml", "other")]
    {
        let text = shipped.replace(
            "use_unity = { constant = \"task\" }",
            &format!("use_unity = {{ constant = \"{unit}\" }}"),
        );
        fs::write(folder.path().join(file), text).unwrap();
    }
    assert_eq!(unit("task").unwrap(), "constant \"job\"");
    assert_eq!(unit("own").unwrap(), "constant \"own\"");
    assert_eq!(unit("other.toml").unwrap(), "constant \"other\"");
    assert_eq!(find("other.toml", folder.path()).unwrap().name.as_ref(), "other");

    for name in ["", "nothing", "../other", "a/b"] {
        assert!(matches!(find(name, folder.path()), Err(NotFound::Unknown)), "{name}");
    }
    fs::write(folder.path().join("mappings/own.toml"), "[pulse]\n").unwrap();
    let Err(NotFound::Faults(faults)) = find("own", folder.path()) else {
        panic!("a bad file is no mapping")
    };
    assert!(faults[0].starts_with("mappings/own.toml, line 1: "), "{faults:?}");
    assert!(matches!(find("none.toml", Path::new(".")), Err(NotFound::Faults(_))));
}
