//! Formats are copies of what a 6.18 kernel wrote; records are built by its layout rules.

use proptest::prelude::*;

use super::*;

const COMMON: &str = "format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;
";

const PROBE: &str = "
	field:unsigned long __probe_ip;	offset:8;	size:8;	signed:0;
	field:u64 req;	offset:16;	size:8;	signed:0;
	field:__data_loc char[] path;	offset:24;	size:4;	signed:1;
	field:u8 small[];	offset:28;	size:5;	signed:0;
	field:u64 arr[];	offset:33;	size:32;	signed:0;
	field:__data_loc char[][2] strs;	offset:65;	size:8;	signed:1;
	field:s32 fl;	offset:73;	size:4;	signed:1;
	field:u32 b;	offset:77;	size:4;	signed:0;
	field:u8 c;	offset:81;	size:1;	signed:0;

print fmt: \"(%lx) req=0x%Lx path=\\\"%s\\\" field:fake x; offset:1; size:1;\", REC->__probe_ip
";

fn probe() -> TracepointFormat {
    TracepointFormat::parse(&format!("name: uv_fs_open\nID: 2326\n{COMMON}{PROBE}")).unwrap()
}

/// A record of [`probe`]: `path` and the two of `strs` as location words, then the text at 82.
fn record(path: u32, strs: [u32; 2], text: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    raw.extend(2326u16.to_le_bytes());
    raw.extend([1, 0]);
    raw.extend(4711i32.to_le_bytes());
    raw.extend(0x18b_1c50u64.to_le_bytes());
    raw.extend(0x7f00_1234_5678u64.to_le_bytes());
    raw.extend(path.to_le_bytes());
    raw.extend([1, 2, 3, 4, 255]);
    (10u64..14).for_each(|v| raw.extend(v.to_le_bytes()));
    strs.iter().for_each(|v| raw.extend(v.to_le_bytes()));
    raw.extend((-2i32).to_le_bytes());
    raw.extend(u32::MAX.to_le_bytes());
    raw.push(b'x');
    assert_eq!(raw.len(), 82);
    raw.extend(text);
    raw
}

#[test]
fn reads_a_probe_format() {
    let format = probe();
    assert_eq!((format.name.as_str(), format.id, format.fields.len()), ("uv_fs_open", 2326, 13));
    let roles: Vec<_> = format.fields.iter().map(|f| f.role).collect();
    assert_eq!(
        roles[..5],
        [FieldRole::Common; 4].into_iter().chain([FieldRole::Probe]).collect::<Vec<_>>()
    );
    let arguments: Vec<_> =
        format.arguments().map(|f| (f.name.as_str(), f.type_name.as_str(), f.kind)).collect();
    assert_eq!(
        arguments,
        [
            ("req", "u64", FieldKind::Int),
            ("path", "__data_loc char[]", FieldKind::Str { relative: false }),
            ("small", "u8", FieldKind::Array { elem_size: 1 }),
            ("arr", "u64", FieldKind::Array { elem_size: 8 }),
            ("strs", "__data_loc char[][2]", FieldKind::StrArray),
            ("fl", "s32", FieldKind::Int),
            ("b", "u32", FieldKind::Int),
            ("c", "u8", FieldKind::Int),
        ]
    );
}

#[test]
fn reads_packed_values() {
    let format = probe();
    let raw = record(12 << 16 | 82, [3 << 16 | 94, 0], b"/etc/passwd\0ab\0");
    let values: Vec<_> = format.decode_arguments(&raw).map(|(_, v)| v).collect();
    assert_eq!(
        values,
        [
            Value::U64(0x7f00_1234_5678),
            Value::Str(b"/etc/passwd"),
            Value::Array(vec![1, 2, 3, 4, 255]),
            Value::Array(vec![10, 11, 12, 13]),
            Value::StrArray(vec![Some(b"ab"), None]),
            Value::I64(-2),
            Value::U64(u64::from(u32::MAX)),
            Value::U64(u64::from(b'x')),
        ]
    );
    let common: Vec<_> = format.decode(&raw).take(5).map(|(_, v)| v).collect();
    let want = [Value::U64(2326), Value::U64(1), Value::U64(0), Value::I64(4711)];
    assert_eq!(common[..4], want);
    assert_eq!(common[4], Value::U64(0x18b_1c50));
}

#[test]
fn tells_fault_empty_and_outside_apart() {
    let format = probe();
    let path = format.field("path").unwrap();
    let table: [(u32, Value<'_>); 5] = [
        (82, Value::Fault),
        (1 << 16 | 82, Value::Str(b"")),
        (3 << 16 | 82, Value::Str(b"")),
        (4 << 16 | 82, Value::Missing),
        (0xffff_ffff, Value::Missing),
    ];
    for (location, want) in table {
        assert_eq!(path.read(&record(location, [0; 2], b"\0bc")), want, "{location:#x}");
    }
    assert_eq!(path.read(&[0; 27]), Value::Missing);
}

#[test]
fn reads_kernel_tracepoints() {
    let text = format!(
        "name: mixed\nID: 372\n{COMMON}
	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t prev_pid;	offset:24;	size:4;	signed:1;
	field:const char * filename;	offset:32;	size:8;	signed:0;
	field:unsigned long args[2];	offset:40;	size:16;	signed:0;
	field:__rel_loc char[] rel;	offset:56;	size:4;	signed:0;
	field:__data_loc unsigned int[] list;	offset:60;	size:4;	signed:0;
	field:struct timespec ts;	offset:64;	size:16;	signed:0;
	field:long state;	offset:80;	size:8;	signed:1;
	field:__data_loc cpumask_t cpus;	offset:88;	size:4;	signed:0;

print fmt: \"\""
    );
    let format = TracepointFormat::parse(&text).unwrap();
    let mut raw = vec![0; 92];
    raw[8..12].copy_from_slice(b"node");
    raw[24..28].copy_from_slice(&(-1i32).to_le_bytes());
    raw[32..40].copy_from_slice(&77u64.to_le_bytes());
    raw[40..48].copy_from_slice(&5u64.to_le_bytes());
    // Behind the field, at 60, 32 bytes on.
    raw[56..60].copy_from_slice(&(3u32 << 16 | 32).to_le_bytes());
    raw[60..64].copy_from_slice(&(8u32 << 16 | 96).to_le_bytes());
    raw[80..88].copy_from_slice(&(-9i64).to_le_bytes());
    raw.extend(b"hi\0.\x01\0\0\0\x02\0\0\0");
    let values: Vec<_> = format.decode_arguments(&raw).map(|(_, v)| v).collect();
    let zeros = [0; 16];
    assert_eq!(
        values,
        [
            Value::Str(b"node"),
            Value::I64(-1),
            Value::U64(77),
            Value::Array(vec![5, 0]),
            Value::Str(b"hi"),
            Value::Array(vec![1, 2]),
            Value::Bytes(&zeros),
            Value::I64(-9),
            Value::Bytes(&zeros[..4]),
        ]
    );
}

#[test]
fn refuses_broken_formats() {
    let missing = |text: &str| TracepointFormat::parse(text).unwrap_err().to_string();
    assert_eq!(missing("ID: 3\n"), "cannot read event format: line \"name:\" is missing");
    assert_eq!(missing("name: a\n"), "cannot read event format: line \"ID:\" is missing");
    for line in [
        "field:u64 a;	offset:x;	size:8;	signed:0;",
        "field:u64 a;	size:8;	signed:0;",
        "field:u64 a;	offset:0;	size:99999999;	signed:0;",
        "field:a;	offset:0;	size:8;	signed:0;",
        "field:;	offset:0;	size:8;",
        "ID: \u{1b}",
    ] {
        let error = missing(&format!("name: a\n{line}\nID: 1\n"));
        assert!(error.contains("line 2 is not understood"), "{error}");
        assert!(!error.contains('\u{1b}'));
    }
    let many = "field:u8 a;	offset:0;	size:1;	signed:0;\n".repeat(MAX_FIELDS + 1);
    assert_eq!(TracepointFormat::parse(&many), Err(FormatError::TooManyFields));
}

#[test]
fn reads_fetch_arguments() {
    let table = [
        ("path=+0(%dx):ustring", Some("path"), "+0(%dx)", Some("ustring")),
        ("req=%si:x64", Some("req"), "%si", Some("x64")),
        ("%di", None, "%di", None),
        ("head=+0(+0(%si)):x64[32]", Some("head"), "+0(+0(%si))", Some("x64[32]")),
        ("_b=%cx:b4@2/32", Some("_b"), "%cx", Some("b4@2/32")),
        ("r=$retval:s32", Some("r"), "$retval", Some("s32")),
        ("ra=$stack0", Some("ra"), "$stack0", None),
        ("u=+u8(%di):u8[4]", Some("u"), "+u8(%di)", Some("u8[4]")),
        ("g=@+0x10", Some("g"), "@+0x10", None),
        ("i=\\123", Some("i"), "\\123", None),
        ("op=-248(%di):s64", Some("op"), "-248(%di)", Some("s64")),
    ];
    for (text, name, expr, type_) in table {
        let arg = parse_fetch_arg(text).unwrap();
        assert_eq!(
            (arg.name.as_deref(), arg.expr.as_str(), arg.type_.as_deref()),
            (name, expr, type_)
        );
        assert_eq!(arg.to_string(), text);
    }
}

#[test]
fn refuses_fetch_arguments_that_could_change_the_command() {
    let long_name = format!("{}=%di", "n".repeat(33));
    let long_body = format!("a=+{}1(%di)", "0".repeat(58));
    type Refused = fn(&FetchArgError) -> bool;
    let table: [(&str, Refused); 17] = [
        ("", |e| matches!(e, FetchArgError::NoExpression(_))),
        ("a=", |e| matches!(e, FetchArgError::NoExpression(_))),
        ("a=:x64", |e| matches!(e, FetchArgError::NoExpression(_))),
        ("=%di", |e| matches!(e, FetchArgError::Name(_))),
        ("1a=%di", |e| matches!(e, FetchArgError::Name(_))),
        ("a-b=%di", |e| matches!(e, FetchArgError::Name(_))),
        (&long_name, |e| matches!(e, FetchArgError::Name(_))),
        ("common_pid=%di", |e| matches!(e, FetchArgError::ReservedName(_))),
        ("__probe_ip=%di", |e| matches!(e, FetchArgError::ReservedName(_))),
        ("a=%di b=%si", |e| matches!(e, FetchArgError::Character { .. })),
        ("a=%di\np:x/y /bin/sh:0", |e| matches!(e, FetchArgError::Character { .. })),
        ("a=%d\u{e9}", |e| matches!(e, FetchArgError::Character { .. })),
        ("a=%di;", |e| matches!(e, FetchArgError::Character { .. })),
        ("a=+0(%di", |e| matches!(e, FetchArgError::Parentheses(_))),
        ("a=+0)%di(", |e| matches!(e, FetchArgError::Parentheses(_))),
        (&long_body, |e| matches!(e, FetchArgError::TooLong { len: 65, .. })),
        ("a=%di:", |e| matches!(e, FetchArgError::Type(_))),
    ];
    for (text, want) in table {
        let error = parse_fetch_arg(text).unwrap_err();
        assert!(want(&error), "{text:?}: {error:?}");
        assert!(!error.to_string().contains('\n'));
    }
}

proptest! {
    #[test]
    fn parse_undoes_print(
        name in prop::option::of("[a-zA-Z][a-zA-Z0-9_]{0,20}"),
        offsets in prop::collection::vec(-512i32..512, 0..4),
        register in "%[a-z]{2}|\\$stack[0-9]|\\$retval",
        type_ in prop::option::of("[xus](8|16|32|64)(\\[[1-9]\\])?|ustring|b4@2/32"),
    ) {
        let expr = offsets.iter().fold(register, |e, o| format!("{o:+}({e})"));
        let arg = FetchArg { name: name.filter(|n| !n.starts_with("common_")), expr, type_ };
        prop_assert_eq!(parse_fetch_arg(&arg.to_string()), Ok(arg));
    }

    #[test]
    fn print_undoes_parse(text in "[ -~]{0,12}|[a-c]=[+%()0-9a-d]{1,9}(:[a-z0-9]{1,4})?|.{0,9}") {
        if let Ok(arg) = parse_fetch_arg(&text) {
            prop_assert_eq!(arg.to_string(), text.clone());
            prop_assert!(text.chars().all(|c| c.is_ascii_graphic()));
        }
    }

    #[test]
    fn decodes_any_bytes(raw in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert_eq!(probe().decode(&raw).count(), 13);
    }

    #[test]
    fn parses_any_text(text in ".*|(name: a\nID: 1\n)(\tfield:[a-z_ \\[\\]0-9]{0,20};\toffset:[0-9]{1,7};\tsize:[0-9]{1,7};\n){0,4}", raw: Vec<u8>) {
        if let Ok(format) = TracepointFormat::parse(&text) {
            prop_assert_eq!(format.decode(&raw).count(), format.fields.len());
        }
    }
}
