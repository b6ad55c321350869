//! Shapes of real functions; the bytes are from the official Node builds named.

use super::*;

/// uv_fs_open and most of libuv in 16, 18 and 24: test %rsi,%rsi; je; push %rbp.
const GUARDED: &[u8] = &[
    0x48, 0x85, 0xf6, 0x0f, 0x84, 0xef, 0x00, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0xc3,
];

/// uv_fs_open of 20.20.2: push %rbp; mov %rsp,%rbp; push %r14; push %r13; push %r12; push %rbx.
const FRAMED: &[u8] =
    &[0x55, 0x48, 0x89, 0xe5, 0x41, 0x56, 0x41, 0x55, 0x41, 0x54, 0x53, 0x48, 0x85, 0xf6];

/// uv_fs_req_cleanup of 20.20.2: test %rdi,%rdi; je; push %rbp; mov %rsp,%rbp; push %rbx; ...
const CLEANUP_20: &[u8] = &[
    0x48, 0x85, 0xff, 0x0f, 0x84, 0xef, 0x00, 0x00, 0x00, 0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x89,
    0xfb, 0x48, 0x83, 0xec, 0x08,
];

/// uv_try_write of 20.20.2: cmpq; jne; cmpq; jne; push %rbp.
const TRY_WRITE_20: &[u8] = &[
    0x48, 0x83, 0x7f, 0x78, 0x00, 0x75, 0x59, 0x48, 0x83, 0x7f, 0x60, 0x00, 0x75, 0x52, 0x55, 0x48,
    0x89, 0xe5,
];

/// llhttp_execute of 20.20.2: add %rsi,%rdx changes an argument.
const LLHTTP_20: &[u8] = &[0x48, 0x01, 0xf2, 0xe9, 0x78, 0x15, 0x00, 0x00];

/// uv__fs_work of 20.20.2: push %rbp; lea -0x150(%rdi),%rdx; mov %rsp,%rbp.
const FS_WORK_20: &[u8] =
    &[0x55, 0x48, 0x8d, 0x97, 0xb0, 0xfe, 0xff, 0xff, 0x48, 0x89, 0xe5, 0x41, 0x57];

fn slide(code: &[u8]) -> SiteChoice {
    choose(code, 0x40_0000, SitePolicy::Slide).unwrap()
}

fn exactly(code: &[u8], offset: u64) -> Result<SiteChoice, SiteError> {
    choose(code, 0x40_0000, SitePolicy::Exact(offset))
}

#[test]
fn slides_to_the_first_push_rbp() {
    for (code, offset, over_branch) in [
        (GUARDED, 9, true),
        (FRAMED, 0, false),
        (CLEANUP_20, 9, true),
        (TRY_WRITE_20, 14, true),
        (FS_WORK_20, 0, false),
        (&[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5], 4, false),
    ] {
        let expected = SiteChoice {
            offset_from_symbol: offset,
            first_byte_class: ByteClass::Push55,
            caller_in_callchain: true,
            return_address_on_stack: true,
            false_caller: false,
            slid_over_branch: over_branch,
        };
        assert_eq!(slide(code), expected, "{code:02x?}");
    }
}

#[test]
fn stays_where_sliding_would_change_what_is_seen() {
    for code in [
        LLHTTP_20,
        // mov %rdi,%rax; push %rbp: not an argument register, but not on the list either.
        &[0x48, 0x89, 0xf8, 0x55],
        // xor %esi,%esi; push %rbp: an argument is written.
        &[0x31, 0xf6, 0x55],
        // push %r15; push %rbp: the return address is no longer on top.
        &[0x41, 0x57, 0x55],
        // movq $0,8(%rdi); push %rbp: memory that a fetch argument may read is written.
        &[0x48, 0xc7, 0x47, 0x08, 0, 0, 0, 0, 0x55],
        // test; je backwards: a loop, the probe would fire differently often.
        &[0x48, 0x85, 0xf6, 0x74, 0xf0, 0x55],
        // ret before any push: the push belongs to the next function.
        &[0x48, 0x85, 0xf6, 0xc3, 0x55],
        // cmp mem; jne to the same push is fine, but jmp is not.
        &[0xeb, 0x00, 0x55],
    ] {
        let choice = slide(code);
        assert_eq!(choice.offset_from_symbol, 0, "{code:02x?}");
        assert!(!choice.slid_over_branch);
        assert!(!choice.caller_in_callchain && choice.return_address_on_stack, "{code:02x?}");
    }
}

#[test]
fn slides_no_further_than_the_limit() {
    let padded = |nops: usize| [vec![0x90; nops], vec![PUSH_RBP]].concat();
    assert_eq!(slide(&padded(SLIDE_LIMIT)).offset_from_symbol, SLIDE_LIMIT as u64);
    let choice = slide(&padded(SLIDE_LIMIT + 1));
    assert_eq!((choice.offset_from_symbol, choice.first_byte_class), (0, ByteClass::Nop));
}

#[test]
fn exact_offsets_must_begin_an_instruction() {
    for offset in [0, 3, 9, 10, 13, 15] {
        assert_eq!(exactly(GUARDED, offset).unwrap().offset_from_symbol, offset);
    }
    for (offset, previous, next) in [(1, 0, 3), (2, 0, 3), (4, 3, 9), (8, 3, 9), (11, 10, 13)] {
        assert_eq!(
            exactly(GUARDED, offset),
            Err(SiteError::InsideInstruction { offset, previous, next })
        );
    }
    assert_eq!(exactly(GUARDED, 16), Err(SiteError::OutOfRange { offset: 16, length: 16 }));
    assert_eq!(exactly(&[], 0), Err(SiteError::Empty));
    // 0x06 is no 64-bit instruction.
    let error = exactly(&[0x90, 0x06, 0x90], 2).unwrap_err();
    assert_eq!(error, SiteError::NotCode { offset: 2, at: 1 });
    let text = exactly(GUARDED, 4).unwrap_err().to_string();
    assert!(text.ends_with("the nearest begin at 0x3 and 0x9"), "{text}");
}

#[test]
fn classes_are_what_the_kernel_emulates() {
    for (code, class) in [
        (&[0x55u8][..], ByteClass::Push55),
        (&[0x40, 0x55], ByteClass::OtherPush),
        (&[0x41, 0x57], ByteClass::OtherPush),
        (&[0xf3, 0x0f, 0x1e, 0xfa], ByteClass::Endbr64),
        (&[0x90], ByteClass::Nop),
        (&[0x0f, 0x1f, 0x44, 0x00, 0x00], ByteClass::Nop),
        (&[0x74, 0x10], ByteClass::EmulatedJump),
        (&[0x0f, 0x84, 1, 0, 0, 0], ByteClass::EmulatedJump),
        (&[0xe9, 1, 0, 0, 0], ByteClass::EmulatedJump),
        (&[0xe8, 1, 0, 0, 0], ByteClass::EmulatedJump),
        (&[0xff, 0xe0], ByteClass::SingleStepped),
        (&[0x48, 0x85, 0xf6], ByteClass::SingleStepped),
        (&[0x48, 0x8b, 0x05, 1, 0, 0, 0], ByteClass::SingleStepped),
    ] {
        assert_eq!(exactly(code, 0).unwrap().first_byte_class, class, "{code:02x?}");
    }
    for refused in [&[0xccu8][..], &[0xf0, 0x48, 0xff, 0x00], &[0x0f, 0x0b], &[0xf4], &[0x2e, 0x90]]
    {
        assert!(
            matches!(exactly(refused, 0), Err(SiteError::Unprobeable { .. })),
            "{refused:02x?}"
        );
    }
}

#[test]
fn callers_follow_from_the_stack() {
    // test; je; push %rbp; mov %rsp,%rbp; push %r15; ret
    let state = |offset| {
        let choice = exactly(GUARDED, offset).unwrap();
        (choice.caller_in_callchain, choice.return_address_on_stack, choice.false_caller)
    };
    assert_eq!(state(0), (false, true, false), "%rbp is still the caller's");
    assert_eq!(state(9), (true, true, false), "push %rbp: the kernel adds the caller");
    assert_eq!(state(10), (false, false, false), "pushed, but %rbp not yet moved");
    assert_eq!(state(13), (true, false, false), "a complete frame");
    // push %r15; push %rbp: the kernel takes the saved %r15 for a return address.
    let choice = exactly(&[0x41, 0x57, 0x55], 2).unwrap();
    assert!(choice.false_caller && !choice.caller_in_callchain);
    // push; mov; call; nop keeps the frame; pop %rbp ends it.
    let code = [0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 0, 0, 0, 0x90, 0x5d, 0xc3];
    assert!(exactly(&code, 9).unwrap().caller_in_callchain);
    assert!(!exactly(&code, 11).unwrap().caller_in_callchain);
}

/// The fact table measured on Node 16 to 26.
#[test]
fn return_probes_are_refused_where_v8_unwinds() {
    for refused in [
        "Builtins_InterpreterEntryTrampoline",
        "Builtins_CEntry_Return1_ArgvOnStack_NoBuiltinExit",
        "_ZN2v88internal33Runtime_AllocateInYoungGenerationEiPmPNS0_7IsolateE",
        "v8::internal::Runtime_Throw(int, unsigned long*, v8::internal::Isolate*)",
        "_ZN2v88internal21Builtin_HandleApiCallEiPmPNS0_7IsolateE",
        "_ZN2v88internalL34Builtin_Impl_ErrorCaptureStackTraceENS0_16BuiltinArgumentsEPNS0_7IsolateE",
        "_ZN4node2fsL4OpenERKN2v820FunctionCallbackInfoINS1_5ValueEEE",
        "node::fs::Open(v8::FunctionCallbackInfo<v8::Value> const&)",
        "_ZN4node2fs15FastClosFastApiEN2v85LocalINS1_6ObjectEEEjRNS1_22FastApiCallbackOptionsE",
        "_ZN4node7process11BindingData7FastNowEN2v85LocalINS2_6ObjectEEE",
        "node::process::BindingData::FastNow(v8::Local<v8::Object>)",
        "dlopen",
        "dlsym",
    ] {
        assert!(uretprobe_refusal(refused).is_some(), "{refused}");
    }
    for allowed in [
        "uv_fs_open",
        "uv_run",
        "SSL_write",
        "uv__io_poll",
        "_ZN2v88internal4Heap14CollectGarbageENS0_15AllocationSpaceENS0_23GarbageCollectionReasonE",
        "_ZN2v88internal7Isolate5ThrowENS0_6TaggedINS0_6ObjectEEEPNS0_15MessageLocationE",
        "v8::internal::Execution::Call(v8::internal::Isolate*)",
        "_ZN4node11Environment9RunTimersEP10uv_timer_s",
        "malloc",
        "Fastidious",
        "",
    ] {
        assert_eq!(uretprobe_refusal(allowed), None, "{allowed}");
    }
}
