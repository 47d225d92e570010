//! The promises.

use super::{
    Bar, Limit, Size, Source, avx2, killed, large, method, mission, packed, picture, quality, race,
    ram, tests, threads,
};

const PARITY: Source = Source {
    name: "parity",
    size: Size::Small,
    measure: |_| tests::readings(&["-p", "mixdq-pipeline", "--release", "--test", "parity"]),
};
const INPUT: Source = Source {
    name: "bad input",
    size: Size::Small,
    measure: |_| tests::readings(&["-p", "mixdq", "--release", "--test", "bad_input"]),
};
const SD_TURBO: Source = Source {
    name: "sd-turbo",
    size: Size::Full,
    measure: |options| picture::readings(options, "sd-turbo"),
};
const SDXL_TURBO: Source = Source {
    name: "sdxl-turbo",
    size: Size::Full,
    measure: |options| picture::readings(options, "sdxl-turbo"),
};
const LCM: Source =
    Source { name: "lcm", size: Size::Full, measure: |options| picture::readings(options, "lcm") };
const UNET_F32: Source = Source {
    name: "unet f32",
    size: Size::Full,
    measure: |options| race::readings(options, ["unet_step", "f32"]),
};
const UNET_BF16: Source = Source {
    name: "unet bf16",
    size: Size::Full,
    measure: |options| race::readings(options, ["unet_step", "bf16"]),
};
const VAE_F32: Source = Source {
    name: "vae f32",
    size: Size::Full,
    measure: |options| race::readings(options, ["vae_decode", "f32"]),
};
const VAE_BF16: Source = Source {
    name: "vae bf16",
    size: Size::Full,
    measure: |options| race::readings(options, ["vae_decode", "bf16"]),
};
const UNET_W8A8: Source = Source {
    name: "unet w8a8",
    size: Size::Full,
    measure: |options| race::readings(options, ["unet_step", "w8a8"]),
};
const VAE_W8A8: Source = Source {
    name: "vae w8a8",
    size: Size::Full,
    measure: |options| race::readings(options, ["vae_decode", "w8a8"]),
};
const W8A8_OF_BF16: Source = Source {
    name: "unet w8a8 bf16",
    size: Size::Full,
    measure: |options| race::against(options, ["sd-turbo", "bf16"]),
};
const SDXL_OF_BF16: Source = Source {
    name: "sdxl w8a8 bf16",
    size: Size::Full,
    measure: |options| race::against(options, ["sdxl-turbo", "bf16"]),
};
const SDXL_OF_W8A16: Source = Source {
    name: "sdxl w8a8 w8a16",
    size: Size::Full,
    measure: |options| race::against(options, ["sdxl-turbo", "w8a16"]),
};
const QUALITY: Source = Source { name: "quality", size: Size::Small, measure: quality::readings };
const LAYERS: Source = Source {
    name: "layers",
    size: Size::Small,
    measure: |_| tests::readings(&["-p", "mixdq-pipeline", "--release", "--test", "layers"]),
};
const PACKED: Source = Source { name: "packed", size: Size::Full, measure: packed::readings };
const PACKED_SDXL: Source = Source { name: "packed sdxl", size: Size::Full, measure: packed::sdxl };
const AVX2: Source = Source { name: "avx2", size: Size::Full, measure: avx2::readings };
const METHOD: Source = Source { name: "method", size: Size::Small, measure: method::readings };
const KILLED: Source = Source { name: "killed", size: Size::Small, measure: killed::readings };
const MISSION: Source = Source { name: "mission", size: Size::Full, measure: mission::readings };
const TARGET: Source = Source { name: "target", size: Size::Full, measure: large::target };
const SOME: Source = Source { name: "layers of sdxl", size: Size::Full, measure: large::layers };
const RAM: Source = Source { name: "ram", size: Size::Full, measure: ram::readings };
const THREADS: Source = Source { name: "threads", size: Size::Full, measure: threads::readings };

/// All bars, in the order of the table.
pub(super) const BARS: &[Bar] = &[
    bar(["parity.max", "parity.max"], Limit::AtMost(2.0, "levels"), &PARITY),
    bar(["parity.mean", "parity.mean"], Limit::AtMost(0.1, "levels"), &PARITY),
    bar(["parity.bf16", "parity.bf16"], Limit::AtLeast(30.0, "dB"), &PARITY),
    bar(["integers.w8a8", "integers.w8a8"], Limit::AtLeast(20.0, "dB"), &PARITY),
    bar(["integers.w4a8", "integers.w4a8"], Limit::AtLeast(6.0, "dB"), &PARITY),
    bar(["parity.pictures", "parity.pictures"], Limit::AtLeast(60.0, "pictures"), &PARITY),
    bar(["parity.failures", "tests.failed"], Limit::AtMost(0.0, "failed"), &PARITY),
    bar(["input.failures", "tests.failed"], Limit::AtMost(0.0, "failed"), &INPUT),
    bar(["input.tests", "tests.passed"], Limit::AtLeast(8.0, "passed"), &INPUT),
    bar(["quality.w8a8", "w8a8"], Limit::AtLeast(32.0, "dB"), &QUALITY),
    bar(["quality.w4a8", "w4a8"], Limit::AtLeast(17.0, "dB"), &QUALITY),
    bar(["quality.layers", "layers"], Limit::AtLeast(60.0, "dB"), &LAYERS),
    bar(["method.first_token", "first"], Limit::AtLeast(0.9, "SSIM"), &METHOD),
    bar(["method.split", "split"], Limit::AtLeast(0.9, "SSIM"), &METHOD),
    bar(["method.static", "best"], Limit::AtLeast(0.95, "SSIM"), &METHOD),
    bar(["method.dynamic", "dynamic"], Limit::AtLeast(0.95, "SSIM"), &METHOD),
    bar(["method.w8a8.lost", "lost_w8a8"], Limit::AtMost(0.01, "of pictures"), &METHOD),
    bar(["method.w4a8.lost", "lost_w4a8"], Limit::AtMost(0.03, "of pictures"), &METHOD),
    bar(["method.w4a8.bytes", "bytes"], Limit::AtMost(1.0, "of uniform"), &METHOD),
    bar(["method.w4a8.ssim", "ssim"], Limit::AtLeast(0.0, "over uniform"), &METHOD),
    bar(["method.w4a8.latents", "sqnr"], Limit::AtLeast(0.0, "dB over uniform"), &METHOD),
    bar(["method.formats.bytes", "channels_bytes"], Limit::AtMost(1.0, "of channels"), &METHOD),
    bar(["method.formats.ssim", "channels_ssim"], Limit::AtLeast(0.0, "over channels"), &METHOD),
    bar(
        ["method.formats.latents", "channels_sqnr"],
        Limit::AtLeast(0.0, "dB over channels"),
        &METHOD,
    ),
    bar(["killed.minutes", "minutes"], Limit::AtMost(20.0, "minutes"), &KILLED),
    bar(["killed.differ", "differ"], Limit::AtMost(0.0, "files"), &KILLED),
    bar(["full.sd-turbo", "deviation"], Limit::AtLeast(10.0, "levels"), &SD_TURBO),
    bar(["full.sdxl-turbo", "deviation"], Limit::AtLeast(10.0, "levels"), &SDXL_TURBO),
    bar(["full.lcm", "deviation"], Limit::AtLeast(10.0, "levels"), &LCM),
    bar(["memory.sd-turbo", "over_largest"], Limit::AtMost(450.0, "MB"), &SD_TURBO),
    bar(["memory.sdxl-turbo", "over_largest"], Limit::AtMost(600.0, "MB"), &SDXL_TURBO),
    bar(["speed.process", "overhead"], Limit::AtMost(2.0, "s"), &SD_TURBO),
    bar(["speed.unet.f32", "ratio"], Limit::AtMost(1.0, "of OpenVINO"), &UNET_F32),
    bar(["speed.unet.bf16", "ratio"], Limit::AtMost(1.0, "of OpenVINO"), &UNET_BF16),
    bar(["speed.vae.f32", "ratio"], Limit::AtMost(1.0, "of OpenVINO"), &VAE_F32),
    bar(["speed.vae.bf16", "ratio"], Limit::AtMost(1.0, "of OpenVINO"), &VAE_BF16),
    bar(["speed.threads", "two_of_one"], Limit::AtMost(0.56, "of one"), &THREADS),
    bar(["speed.neighbour", "spinning"], Limit::AtMost(1.6, "of idle"), &THREADS),
    bar(["packed.unet.w8a8", "ratio"], Limit::AtMost(0.92, "of OpenVINO w8a8"), &UNET_W8A8),
    bar(["packed.unet.real", "ratio"], Limit::AtMost(0.55, "of OpenVINO bf16"), &W8A8_OF_BF16),
    bar(["packed.sdxl.real", "ratio"], Limit::AtMost(0.62, "of OpenVINO bf16"), &SDXL_OF_BF16),
    bar(
        ["packed.sdxl.weights", "ratio"],
        Limit::AtMost(0.73, "of OpenVINO int8 weights"),
        &SDXL_OF_W8A16,
    ),
    bar(["packed.vae.w8a8", "ratio"], Limit::AtMost(0.8, "of OpenVINO w8a8"), &VAE_W8A8),
    bar(["packed.w8a8", "w8a8_of_bf16"], Limit::AtMost(0.62, "of bf16"), &PACKED),
    bar(["packed.w4a8", "w4a8_of_w8a8"], Limit::AtMost(1.05, "of w8a8"), &PACKED),
    bar(["packed.w2a8", "w2a8_of_w8a8"], Limit::AtMost(1.1, "of w8a8"), &PACKED),
    bar(["packed.w4a16", "w4a16_of_bf16"], Limit::AtMost(1.05, "of bf16"), &PACKED),
    bar(["packed.avx2.w8a8", "w8a8"], Limit::AtMost(0.7, "of f32"), &AVX2),
    bar(["packed.avx2.w4a8", "w4a8"], Limit::AtMost(0.5, "of f32"), &AVX2),
    bar(["packed.step", "step_over"], Limit::AtMost(150.0, "MB over stored"), &PACKED),
    bar(["packed.second", "dirty_over"], Limit::AtMost(30.0, "MB over arena"), &PACKED),
    bar(["packed.first", "first_step"], Limit::AtMost(0.5, "s over a later"), &PACKED),
    bar(["packed.quantize", "quantize_peak"], Limit::AtMost(1000.0, "MB"), &PACKED),
    bar(["packed.sdxl.w8", "w8"], Limit::AtMost(2500.0, "MiB"), &PACKED_SDXL),
    bar(["packed.sdxl.w4", "w4"], Limit::AtMost(1330.0, "MiB"), &PACKED_SDXL),
    bar(["packed.sdxl.quantize", "quantize_peak"], Limit::AtMost(1000.0, "MB"), &PACKED_SDXL),
    bar(["mission.smaller", "smaller"], Limit::AtLeast(3.4, "times"), &MISSION),
    bar(["mission.smaller.w8", "smaller_w8"], Limit::AtLeast(1.9, "times"), &MISSION),
    bar(["mission.leaner", "leaner"], Limit::AtLeast(3.0, "times"), &MISSION),
    bar(["mission.faster", "faster"], Limit::AtLeast(1.45, "times"), &MISSION),
    bar(["sdxl.layers.same", "differ"], Limit::AtMost(0.0, "files"), &SOME),
    bar(["sdxl.layers.faster", "faster"], Limit::AtLeast(1.6, "times"), &SOME),
    bar(["sdxl.target.time", "hours"], Limit::AtMost(4.0, "hours"), &TARGET),
    bar(["sdxl.target.memory", "peak"], Limit::AtMost(6.0, "GB"), &TARGET),
    bar(["ram.default", "default"], Limit::AtMost(1500.0, "MB"), &RAM),
    bar(["ram.sd-turbo", "sd"], Limit::AtMost(700.0, "MB"), &RAM),
    bar(["ram.1024", "large"], Limit::AtMost(2200.0, "MB"), &RAM),
    bar(["ram.1024.time", "large_time"], Limit::AtMost(4.8, "of 512x512"), &RAM),
    bar(["ram.600M", "under_600"], Limit::AtMost(1.25, "of free or disk"), &RAM),
    bar(["ram.400M", "under_400"], Limit::AtMost(2.0, "of free or disk"), &RAM),
    bar(["ram.plan.beyond", "beyond_plan"], Limit::AtMost(0.0, "MB over plan"), &RAM),
    bar(["ram.plan.below", "below_plan"], Limit::AtMost(16.0, "MB under plan"), &RAM),
    bar(["ram.same", "differ"], Limit::AtMost(0.0, "pictures"), &RAM),
    bar(["ram.batch", "batch_reads"], Limit::AtMost(1.1, "of one prompt"), &RAM),
    bar(["ram.refused", "refused"], Limit::AtLeast(1.0, "refusal"), &RAM),
];

const fn bar([name, reading]: [&'static str; 2], limit: Limit, source: &'static Source) -> Bar {
    Bar { name, reading, limit, source }
}
