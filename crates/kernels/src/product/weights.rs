//! The quantised formats as types: what kernels are specialised by.

use crate::Format;
use crate::pack::{self, Layout};

/// A quantised format.
pub(super) trait Weights {
    const FORMAT: Format;
    const LAYOUT: Layout = Layout::of(Self::FORMAT);
    /// How far what kernels multiply (unsigned bytes) lies above the weights.
    const OFFSET: i32 = pack::offset(Self::FORMAT);
    /// Are minima added?
    const MINS: bool = pack::has_mins(Self::FORMAT);
    /// Have the halves of a tile scales of their own?
    const HALVES: bool = matches!(Self::FORMAT, Format::Q6_K);
}

macro_rules! weights {
    ($($name:ident = $format:ident),*) => {
        $(
            pub(super) struct $name;

            impl Weights for $name {
                const FORMAT: Format = Format::$format;
            }
        )*
    };
}

weights!(
    Q40 = Q4_0,
    Q41 = Q4_1,
    Q50 = Q5_0,
    Q51 = Q5_1,
    Q80 = Q8_0,
    Q4K = Q4_K,
    Q5K = Q5_K,
    Q6K = Q6_K,
    Mxfp4 = MXFP4,
    Iq4Nl = IQ4_NL
);

/// Calls `$function::<F>`, or `$function::<F, $more>`, with the type of a format.
macro_rules! for_format {
    ($format:expr, $function:ident $(<$more:ty>)? ( $($argument:expr),* )) => {{
        use crate::product::weights::{Iq4Nl, Mxfp4, Q40, Q41, Q4K, Q50, Q51, Q5K, Q6K, Q80};
        match $format {
            Format::Q4_0 => $function::<Q40 $(, $more)?>($($argument),*),
            Format::Q4_1 => $function::<Q41 $(, $more)?>($($argument),*),
            Format::Q5_0 => $function::<Q50 $(, $more)?>($($argument),*),
            Format::Q5_1 => $function::<Q51 $(, $more)?>($($argument),*),
            Format::Q8_0 => $function::<Q80 $(, $more)?>($($argument),*),
            Format::Q4_K => $function::<Q4K $(, $more)?>($($argument),*),
            Format::Q5_K => $function::<Q5K $(, $more)?>($($argument),*),
            Format::Q6_K => $function::<Q6K $(, $more)?>($($argument),*),
            Format::MXFP4 => $function::<Mxfp4 $(, $more)?>($($argument),*),
            Format::IQ4_NL => $function::<Iq4Nl $(, $more)?>($($argument),*),
            Format::BF16 | Format::F16 | Format::F32 => unreachable!("a float format is not multiplied with integers"),
        }
    }};
}
pub(super) use for_format;

/// The 6-bit scales of the 8 tiles of a K-quant's unit as bytes: `[tile][16 rows]` scales, then minima.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SixBits(pub [u8; 256]);

impl SixBits {
    /// From the 192 bytes of the header (see `pack.rs`). Plain code, which is vectorised where it is inlined.
    ///
    /// # Safety
    /// `packed` points to 192 bytes.
    #[inline(always)]
    pub unsafe fn unpack(packed: *const u8, out: &mut Self) {
        for i in 0..64 {
            // SAFETY: `i + 128` is below 192.
            let (first, second, high) = unsafe { (*packed.add(i), *packed.add(i + 64), *packed.add(i + 128)) };
            out.0[i] = first & 15 | (high & 0x03) << 4;
            out.0[i + 64] = second & 15 | high & 0x30;
            out.0[i + 128] = first >> 4 | (high & 0x0c) << 2;
            out.0[i + 192] = second >> 4 | (high & 0xc0) >> 2;
        }
    }
}
