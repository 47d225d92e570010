//! Packed weights read back equal to their source.

mod support;

use half::{bf16, f16};
use kernels::{
    Cpu,
    format::{NonFinite, PanelFormat, PanelLayout, Panels, Rows, Source, pack},
    reference::weight,
};
use proptest::prelude::*;
use support::{cpus, numbers, to_bf16};

fn packed(
    cpu: &Cpu,
    source: (Source<'_>, Rows),
    layout: PanelLayout,
) -> Result<Vec<u32>, NonFinite> {
    let mut words = vec![0xffff_ffff_u32; layout.bytes().div_ceil(4)];
    let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..layout.bytes()];
    pack(cpu, source, layout, bytes).map(|()| words)
}

fn rounded(x: f32, format: PanelFormat) -> f32 {
    match format {
        PanelFormat::F32 => x,
        PanelFormat::F16 => f16::from_f32(x).to_f32(),
        PanelFormat::Bf16 => bf16::from_f32(x).to_f32(),
        _ => unreachable!("integers are packed elsewhere"),
    }
}

const FORMATS: [PanelFormat; 3] = [PanelFormat::F32, PanelFormat::F16, PanelFormat::Bf16];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_weight_is_found_again(
        n in 1..150_usize,
        channels in 1..70_usize,
        taps in 1..10_usize,
        seed: u64,
    ) {
        let values = numbers(seed, n * channels * taps);
        let halves: Vec<u16> = values.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
        let brains = to_bf16(&values);
        let cpu = &Cpu::detect(2);
        for format in FORMATS {
            let layout = PanelLayout { format, n, taps, channels };
            for source in [Source::F32(&values), Source::F16(&halves), Source::Bf16(&brains)] {
                let words = packed(cpu, (source, Rows::Natural), layout).unwrap();
                let bytes = &bytemuck::cast_slice(&words)[..layout.bytes()];
                let panels = Panels { layout, bytes, multipliers: None };
                for i in 0..n * channels * taps {
                    let (row, channel, tap) = (i / taps / channels, i / taps % channels, i % taps);
                    let x = match source {
                        Source::F32(values) => values[i],
                        Source::F16(bits) => f16::from_bits(bits[i]).to_f32(),
                        Source::Bf16(bits) => bf16::from_bits(bits[i]).to_f32(),
                    };
                    prop_assert_eq!(weight(&panels, row, (tap, channel)), rounded(x, format));
                }
            }
        }
    }

    #[test]
    fn gates_follow_their_hidden_lanes(hidden in 1..80_usize, channels in 1..20_usize) {
        let values = numbers(1, 2 * hidden * channels);
        for format in FORMATS {
            let layout = PanelLayout::gated(format, hidden, channels);
            let source = (Source::F32(&values), Rows::Interleaved16);
            let words = packed(&Cpu::detect(1), source, layout).unwrap();
            let panels = Panels {
                layout,
                bytes: &bytemuck::cast_slice(&words)[..layout.bytes()],
                multipliers: None,
            };
            for unit in 0..hidden {
                let lane = unit / 16 * 32 + unit % 16;
                for channel in 0..channels {
                    for (lane, row) in [(lane, unit), (lane + 16, hidden + unit)] {
                        let x = rounded(values[row * channels + channel], format);
                        prop_assert_eq!(weight(&panels, lane, (0, channel)), x);
                    }
                }
            }
        }
    }
}

#[test]
fn all_levels_pack_the_same_bytes() {
    let values = numbers(5, 100 * 33 * 9);
    for format in FORMATS {
        let layout = PanelLayout { format, n: 100, taps: 9, channels: 33 };
        let source = (Source::F32(&values), Rows::Natural);
        let cpus = cpus();
        let first = packed(&cpus[0], source, layout).unwrap();
        for cpu in &cpus {
            assert_eq!(packed(cpu, source, layout).unwrap(), first, "{}", cpu.level());
        }
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let cpu = &Cpu::detect(2);
    for (bad, formats) in [
        (f32::NAN, &FORMATS[..]),
        (f32::INFINITY, &FORMATS[..]),
        (f32::NEG_INFINITY, &FORMATS[..]),
        (f32::MAX, &FORMATS[1..]),
        (65_520.0, &FORMATS[1..2]),
    ] {
        for place in [0, 777, 70 * 20 - 1] {
            let mut values = numbers(1, 70 * 20);
            values[place] = bad;
            for &format in formats {
                let layout = PanelLayout::linear(format, 70, 20);
                let result = packed(cpu, (Source::F32(&values), Rows::Natural), layout);
                assert_eq!(result.err(), Some(NonFinite), "{bad} at {place} in {format:?}");
            }
        }
    }
}
