//! Properties that hold for any result of a plugin.

use proptest::prelude::*;

use super::*;
use crate::arbitrary::{Kind, almost_json, cases, json_object, json_string, read};

const OWN: Own<'static> = Own { message_id: "id", consumer_id: "me/1", plugin_digest: None };

/// The expected fields, or `None` if the result is not an object: the last value of each name, in the order of those
/// last values.
fn expected(result: &str) -> Option<Vec<String>> {
    let Kind::Object(members) = read(result)?.kind else {
        return None;
    };
    let mut fields: Vec<(String, String)> = Vec::new();
    for (name, value) in members {
        let name = name.lossy;
        let text = match value.kind {
            Kind::Text(text) => text.lossy,
            _ => value.raw.to_owned(),
        };
        fields.retain(|(earlier, _)| *earlier != name);
        fields.push((name, text));
    }
    fields.retain(|(name, _)| name != "message_id" && name != "consumer_id");
    let mut all = ["message_id", "id", "consumer_id", "me/1"].map(str::to_owned).to_vec();
    for (name, text) in fields {
        all.extend([name, text]);
    }
    Some(all)
}

fn fields(result: &str) -> Option<Vec<String>> {
    let mut entries = Entries::default();
    entries.field("an earlier", "entry");
    entries.finish();
    let written = write_result(&mut entries, OWN, result, OutputFormat::Fields);
    if written.is_err() {
        entries.truncate(1);
    }
    let mut texts = entries.texts();
    assert_eq!(texts.remove(0), ["an earlier", "entry"]);
    assert_eq!(texts.len(), usize::from(written.is_ok()));
    texts.pop()
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn a_result_becomes_the_fields_that_the_grammar_has(result in almost_json()) {
        prop_assert_eq!(fields(&result), expected(&result));
    }

    #[test]
    fn an_entry_begins_with_its_own_fields_and_has_them_once(result in json_object()) {
        if let Some(fields) = fields(&result) {
            prop_assert_eq!(&fields[..4], ["message_id", "id", "consumer_id", "me/1"]);
            let mut names: Vec<&String> = fields.iter().step_by(2).collect();
            names.sort();
            prop_assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{:?}", names);
        }
    }

    #[test]
    fn a_whole_result_is_kept_to_the_letter(result in almost_json()) {
        let mut entries = Entries::default();
        let written = write_result(&mut entries, OWN, &result, OutputFormat::Json).is_ok();
        prop_assert_eq!(written, matches!(read(&result).map(|node| node.kind), Some(Kind::Object(_))));
        if written {
            prop_assert_eq!(&entries.texts()[0][4..], ["json", result.as_str()]);
        }
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// Beyond a few dozen properties the host finds repeated ones in another way.
    #[test]
    fn many_properties_are_treated_as_few_are(names in prop::collection::vec((0_u16..200, any::<bool>()), 20..300)) {
        let members = names.iter().enumerate();
        let members = members.map(|(index, (name, escaped))| format!("{}:{index}", json_string(&format!("p{name}"), *escaped)));
        let result = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
        prop_assert_eq!(fields(&result), expected(&result));
    }
}
