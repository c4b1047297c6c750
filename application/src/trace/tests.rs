use super::*;
use proptest::prelude::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn envelope(headers: &[(&str, &str)]) -> Envelope {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Envelope { headers, ..Envelope::default() }
}

/// What is passed on of headers.
fn passed_on(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    TraceContext::of(&envelope(headers)).map_or_else(Vec::new, |context| context.headers())
}

fn parent(text: &str) -> Option<String> {
    passed_on(&[(TRACEPARENT, text)]).pop().map(|(_, value)| value)
}

#[test]
fn the_example_of_the_specification_is_read_and_goes_on_with_another_span() {
    let context = TraceContext::of(&envelope(&[("Traceparent", PARENT)])).unwrap();
    assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(context.is_sampled());
    let child = context.at(NonZeroU64::new(0xab).unwrap()).sampled(false);
    let headers = child.headers();
    assert_eq!(headers[0].1, "00-4bf92f3577b34da6a3ce929d0e0e4736-00000000000000ab-00");
    assert_eq!(headers.len(), 1);
}

#[test]
fn what_the_specification_forbids_is_no_context() {
    let wrong = [
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
    ];
    for text in wrong {
        assert_eq!(parent(text), None, "{text}");
    }
    assert_eq!(passed_on(&[(TRACEPARENT, PARENT), ("TraceParent", PARENT)]), []);
    assert_eq!(passed_on(&[(TRACESTATE, "a=1")]), []);
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    for later in [PARENT.replacen("00", "cc", 1), PARENT.replacen("00", "01", 1) + "-what-is-new"] {
        assert_eq!(parent(&later).as_deref(), Some(PARENT));
    }
    let flags = PARENT.replacen("-01", "-ff", 1);
    assert!(parent(&flags).unwrap().ends_with("-03"), "flags that nobody knows yet are not passed on");
}

#[test]
fn a_state_is_passed_on_as_it_came_and_left_behind_where_it_is_no_good() {
    let state = |values: &[&str]| {
        let mut headers = vec![(TRACEPARENT, PARENT)];
        headers.extend(values.iter().map(|value| (TRACESTATE, *value)));
        let passed_on = passed_on(&headers);
        assert_eq!(passed_on[0].1, PARENT);
        passed_on.get(1).map(|(_, value)| value.clone())
    };
    assert_eq!(state(&["vendor=a:b,other@x=1"]).as_deref(), Some("vendor=a:b,other@x=1"));
    assert_eq!(state(&["a=1", "b=2, "]).as_deref(), Some("a=1,b=2, "));
    let members = |count: usize| vec!["a=1"; count].join(",");
    assert!(state(&[&members(32)]).is_some());
    let wrong =
        [members(33), "x".repeat(513), format!("a={}", "x".repeat(511)), "a=\u{e9}".into(), "a".into()];
    for text in wrong.iter().map(String::as_str).chain(["=1", "a=\u{0}", ""]) {
        assert_eq!(state(&[text]), None, "{text}");
    }
}

#[test]
fn few_of_many_traces_are_told_each_once() {
    let of = |number: u128| {
        let parent = format!("00-{number:032x}-00f067aa0ba902b7-01");
        envelope(&[(TRACEPARENT, parent.as_str())])
    };
    let envelopes: Vec<Envelope> = (1..1_000).flat_map(|number| [of(number), of(number)]).collect();
    let traces = Traces::of(envelopes.iter());
    let text = traces.several().unwrap().to_string();
    assert_eq!(text.split(',').count(), Traces::MAX);
    assert!(text.ends_with("20") && traces.one().is_none(), "{text}");
    let single = Traces::of(envelopes[..2].iter().chain([&Envelope::default()]));
    assert_eq!(single.one().map(|id| id.to_string()), Some(format!("{:032x}", 1)));
    assert!(single.several().is_none());
    let none = Traces::of([Envelope::default()].iter());
    assert!(none.one().is_none() && none.several().is_none());
}

proptest! {
    #[test]
    fn nothing_in_headers_is_more_than_ignored(
        name in prop_oneof![Just(TRACEPARENT.to_owned()), Just(TRACESTATE.to_owned()), ".*"],
        value in "\\PC*",
        edit in 0_usize..60,
        with in any::<char>(),
    ) {
        let mut near: Vec<char> = PARENT.chars().collect();
        near.insert(edit.min(near.len()), with);
        let near: String = near.into_iter().collect();
        for value in [value.as_str(), near.as_str()] {
            for (parent, state) in passed_on(&[(&name, value), (TRACEPARENT, PARENT), (TRACESTATE, value)])
                .chunks(2)
                .map(|headers| (&headers[0].1, headers.get(1)))
            {
                prop_assert!(parent.len() == TRACEPARENT_BYTES);
                prop_assert!(state.is_none_or(|(_, state)| state.len() <= STATE_BYTES_MAX));
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        trace in 1_u128..,
        span in 1_u64..,
        flags in 0_u8..=FLAGS,
        state in proptest::option::of("[a-z][a-z0-9_*/@-]{0,20}=[!-+\\--<>-~]{1,50}(,[a-z]{1,5}=[a-z]{1,9}){0,9}"),
    ) {
        let context = TraceContext {
            trace_id: TraceId(NonZeroU128::new(trace).unwrap()),
            span_id: NonZeroU64::new(span).unwrap(),
            flags,
            state,
        };
        let headers = context.headers();
        let envelope = Envelope { headers, ..Envelope::default() };
        prop_assert_eq!(TraceContext::of(&envelope), Some(context));
    }
}
