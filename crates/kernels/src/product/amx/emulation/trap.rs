//! The handler of SIGILL.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::decode::{Instruction, Memory, Register, decode};
use super::unit::{Fault, Unit};

static INSTALLED: OnceLock<bool> = OnceLock::new();

thread_local! {
    static UNIT: UnsafeCell<Unit> = const { UnsafeCell::new(Unit::new()) };
}

pub(super) fn is_installed() -> bool {
    INSTALLED.get().copied().unwrap_or(false)
}

pub(super) fn install() -> Result<(), &'static str> {
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: zeros are a valid action, to which a handler of the right signature is given.
        unsafe {
            let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
            action.sa_sigaction = handle as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGILL, &raw const action, null_mut()) == 0
        }
    });
    if *installed { Ok(()) } else { Err("the handler of SIGILL cannot be installed") }
}

/// Runs the instructions of AMX from the one that raised the signal to the next of another kind.
extern "C" fn handle(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: what the system gives to a handler is the thread's context, which is its own.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let mut found = false;
    loop {
        let at = registers[libc::REG_RIP as usize] as *const u8;
        // SAFETY: the processor was reading instructions there.
        let Some((instruction, size)) = decode(|i| unsafe { at.wrapping_add(i).read() }) else { break };
        found = true;
        let done = UNIT.with(|unit| {
            // SAFETY: the thread is in its handler, and nowhere else in its unit. What the kernels' instructions read or
            // write is valid by their own promises.
            unsafe { run(&mut *unit.get(), instruction, registers) }
        });
        if let Err(fault) = done {
            stop(fault);
        }
        registers[libc::REG_RIP as usize] += size as i64;
    }
    if !found {
        // Somebody else's mistake: with the system's own handling it is met again, and ends the process.
        // SAFETY: any signal can be given its default handling.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
}

/// # Safety
/// The instruction could be run: what it reads and writes is valid, and the machine has AVX-512.
unsafe fn run(unit: &mut Unit, instruction: Instruction, registers: &[i64; 23]) -> Result<(), Fault> {
    let start = |at: Memory| register(registers, at.base).wrapping_add(at.displacement);
    let stride = |at: Memory| at.index.map_or(0, |(index, scale)| register(registers, index) as isize * scale as isize);
    // SAFETY: the caller's promise.
    unsafe {
        match instruction {
            Instruction::Configure { at } => {
                unit.configure(&*(start(at).wrapping_add(stride(at) as i64) as *const [u8; 64]))
            }
            Instruction::Release => {
                unit.release();
                Ok(())
            }
            Instruction::Load { tile, at } => unit.load(tile, start(at) as *const u8, stride(at)),
            Instruction::Store { tile, at } => unit.store(tile, start(at) as *mut u8, stride(at)),
            Instruction::Dot { sum, a, b } => unit.dot(sum, a, b),
        }
    }
}

fn register(registers: &[i64; 23], number: Register) -> i64 {
    const PLACES: [libc::c_int; 16] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RBX,
        libc::REG_RSP,
        libc::REG_RBP,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
        libc::REG_R12,
        libc::REG_R13,
        libc::REG_R14,
        libc::REG_R15,
    ];
    registers[PLACES[number] as usize]
}

/// Says what is wrong, with nothing but what a handler may call.
fn stop(fault: Fault) -> ! {
    let say = |text: &str| {
        // SAFETY: the text is valid.
        unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) }
    };
    say("emulated AMX: ");
    say(fault);
    say("\n");
    std::process::abort()
}
