//! What every device must compute, and numbers for it.

use tensor::file::{Checkpoint, TensorView};
use tensor::graph::{Activation, Mask, Padding};
use tensor::{Graph, Value, Weight};

/// Numbers that look random and are the same everywhere: about −1…1.
pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

pub(crate) fn weight(name: &str, shape: &[usize], scale: f32) -> Weight {
    let seed = name.bytes().fold(7, |h: u32, b| h.wrapping_mul(31).wrapping_add(b.into()));
    let values: Vec<f32> =
        numbers(shape.iter().product(), seed).iter().map(|x| x * scale).collect();
    let views = [(name.to_owned(), TensorView::from_f32(shape, &values))];
    Weight::new(&Checkpoint::from_views("test", views), name, shape)
}

/// A recording of some operations.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) record: fn(&Graph) -> Value<'_>,
}

/// What every device must compute.
pub(crate) const CASES: &[Case] = &[
    Case { name: "linear, residual and activation", record: linear },
    Case { name: "convolution after a resize, shift", record: conv },
    Case { name: "gated feed-forward", record: geglu },
    Case { name: "residual block", record: resnet },
    Case { name: "attention", record: attention },
    Case { name: "text", record: text },
    Case { name: "moving numbers", record: moves },
];

fn linear(g: &Graph) -> Value<'_> {
    let x = g.input("x", [2, 7, 40]);
    let (w, b) = (weight("l.weight", &[72, 40], 0.2), weight("l.bias", &[72], 0.5));
    let (u, v) = (weight("m.weight", &[40, 72], 0.2), weight("m.bias", &[40], 0.5));
    x + x.linear(&w, Some(&b)).activate(Activation::QuickGelu).linear(&u, Some(&v))
}

fn conv(g: &Graph) -> Value<'_> {
    let x = g.input("x", [2, 5, 6, 3]);
    let t = g.input("t", [2, 20]);
    let (w, b) = (weight("c.weight", &[20, 3, 3, 3], 0.3), weight("c.bias", &[20], 0.5));
    let d = weight("d.weight", &[4, 20, 3, 3], 0.2);
    let h = x.upsample(9, 12).conv2d(&w, Some(&b), 1, Padding::all(1)).add_shift(t).silu();
    h.conv2d(&d, None, 2, Padding { top: 0, left: 0, bottom: 1, right: 1 }).scale(0.5)
}

fn geglu(g: &Graph) -> Value<'_> {
    let x = g.input("x", [1, 9, 32]);
    let (w, b) = (weight("g.weight", &[2 * 48, 32], 0.3), weight("g.bias", &[96], 0.5));
    let (gamma, beta) = (weight("n.weight", &[32], 1.0), weight("n.bias", &[32], 0.2));
    x.layer_norm(1e-5, &gamma, &beta).linear(&w, Some(&b)).geglu()
}

pub(crate) fn resnet(g: &Graph) -> Value<'_> {
    let x = g.input("x", [1, 6, 6, 16]).concat_channels(g.input("y", [1, 6, 6, 8]));
    let (gamma, beta) = (weight("n.weight", &[24], 1.0), weight("n.bias", &[24], 0.2));
    let w = weight("c.weight", &[32, 24, 3, 3], 0.1);
    let s = weight("s.weight", &[32, 24, 1, 1], 0.2);
    let h = x.group_norm(4, 1e-5, &gamma, &beta).silu().conv2d(&w, None, 1, Padding::all(1));
    h + x.conv2d(&s, None, 1, Padding::all(0))
}

fn attention(g: &Graph) -> Value<'_> {
    let (x, c) = (g.input("x", [2, 13, 48]), g.input("c", [2, 7, 48]));
    let w = weight("q.weight", &[48, 48], 0.3);
    let own = x.linear(&w, None).attention(x, x, 3, Mask::Causal);
    own + own.attention(c, c, 6, Mask::None).reshape([2, 13, 48])
}

fn text(g: &Graph) -> Value<'_> {
    let (ids, which) = (g.index("ids", [2, 5]), g.index("which", [2]));
    let (table, places) = (weight("e.weight", &[11, 16], 1.0), weight("p.weight", &[9, 16], 1.0));
    let row = weight("class", &[16], 1.0);
    let x = ids.embed(&table).add_table(&places);
    x.repeat(&row).concat_tokens(x).select_token(which)
}

fn moves(g: &Graph) -> Value<'_> {
    let x = g.input("x", [1, 4, 4, 10]);
    let factors = weight("l.pre_quant_scale", &[10], 0.7);
    let y = x.scale_channels(&factors).channels(2, 6).upsample(8, 6).activate(Activation::Relu);
    (y * y).scale(2.0).offset(-0.5).concat_channels(y.activate(Activation::Tanh)).geglu()
}
