//! Element-wise operations: activations, sums, products, scales.
//!
//! They are for the places where a matrix product or a normalisation cannot do them on its way.

use crate::{
    Cpu,
    isa::{Isa, LANES, SimdOp},
    math,
    threads::{Grid, Order, Output, OutputTile},
};

/// A function of one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `x / (1 + e⁻ˣ)`.
    Silu,
    /// `x/2 (1 + erf(x / √2))`.
    Gelu,
    /// `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x / (1 + e^(−1.702 x))`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `tanh x`.
    Tanh,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

impl Activation {
    /// The function of each lane.
    #[inline(always)]
    pub fn apply<I: Isa>(self, isa: I, x: I::V) -> I::V {
        match self {
            Self::None => x,
            Self::Silu => math::silu(isa, x),
            Self::Gelu => math::gelu(isa, x),
            Self::GeluTanh => math::gelu_tanh(isa, x),
            Self::QuickGelu => math::quick_gelu(isa, x),
            Self::Relu => math::relu(isa, x),
            Self::Tanh => math::tanh(isa, x),
            Self::Sigmoid => math::sigmoid(isa, x),
        }
    }
}

/// The shape of an operand whose rows may be further apart than they are long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
    /// Distance of two rows in elements.
    pub stride: usize,
}

impl Extent {
    /// `length` elements in one row.
    pub fn flat(length: usize) -> Self {
        Self { rows: 1, columns: length, stride: length }
    }

    /// The chunks that threads take.
    pub(crate) fn grid(&self) -> Grid {
        let column_block = self.columns.clamp(1, CHUNK);
        let row_block = (CHUNK / column_block).max(1);
        let (rows, columns, order) = (self.rows, self.columns, Order::ColumnsFirst);
        Grid { groups: 1, rows, columns, row_block, column_block, order }
    }
}

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// `output = activation(input)`.
#[derive(Debug)]
pub struct Activate<'a> {
    /// Numbers of shape `extent`.
    pub input: &'a [f32],
    /// Shape of the input.
    pub extent: Extent,
    /// The function.
    pub activation: Activation,
    /// As many rows and columns as the input.
    pub output: Output<'a>,
}

impl Activate<'_> {
    /// Compute all elements.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, extent, activation, output } = self;
        let map = Unary::Activate(activation);
        map_rows(cpu, (input, extent), map, output);
    }
}

/// `output = input · scale + offset`.
#[derive(Debug)]
pub struct Affine<'a> {
    /// Numbers of shape `extent`.
    pub input: &'a [f32],
    /// Shape of the input.
    pub extent: Extent,
    /// Factor.
    pub scale: f32,
    /// Summand.
    pub offset: f32,
    /// As many rows and columns as the input.
    pub output: Output<'a>,
}

impl Affine<'_> {
    /// Compute all elements.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says.
    pub fn run(self, cpu: &Cpu) {
        let Self { input, extent, scale, offset, output } = self;
        map_rows(cpu, (input, extent), Unary::Affine(scale, offset), output);
    }
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `left + right`.
    Add,
    /// `left − right`.
    Sub,
    /// `left · right`.
    Mul,
    /// `left · gelu(right)`.
    Geglu,
}

/// `output = operation(left, right)`.
#[derive(Debug)]
pub struct Combine<'a> {
    /// The function.
    pub operation: Operation,
    /// Numbers of shape `extent`.
    pub left: &'a [f32],
    /// Shape of the left operand and of the result.
    pub extent: Extent,
    /// Rows as long as those of `left`.
    pub right: &'a [f32],
    /// Distance of two rows of `right` in elements.
    pub right_stride: usize,
    /// How many rows of `left` share one row of `right`: 1, or the pixels of an image, or all.
    pub repeat: usize,
    /// As many rows and columns as `left`.
    pub output: Output<'a>,
}

impl Combine<'_> {
    /// Compute all elements.
    ///
    /// # Panics
    ///
    /// Panics if an operand is smaller than its shape says, or if `repeat` is zero.
    pub fn run(self, cpu: &Cpu) {
        let Self { operation, left, extent, right, right_stride, repeat, output } = self;
        cpu.threads.run_tiles((output, extent.grid()), &mut [], |tile, _| {
            let left = (left, extent.stride);
            cpu.eval(CombineRows { operation, left, right: (right, right_stride, repeat), tile });
        });
    }
}

#[derive(Clone, Copy)]
enum Unary {
    Activate(Activation),
    Affine(f32, f32),
}

fn map_rows(cpu: &Cpu, (input, extent): (&[f32], Extent), map: Unary, output: Output<'_>) {
    cpu.threads.run_tiles((output, extent.grid()), &mut [], |tile, _| {
        cpu.eval(MapRows { map, input, stride: extent.stride, tile });
    });
}

struct MapRows<'a, 't> {
    map: Unary,
    input: &'a [f32],
    stride: usize,
    tile: OutputTile<'t>,
}

impl SimdOp for MapRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        for (index, row) in self.tile.cell.rows.clone().enumerate() {
            let columns = self.tile.cell.columns.clone();
            let input = &self.input[row * self.stride..][columns];
            for (i, x) in input.chunks(LANES).enumerate() {
                let x = isa.read(x);
                let y = match self.map {
                    Unary::Activate(activation) => activation.apply(isa, x),
                    Unary::Affine(scale, offset) => isa.fma(x, isa.splat(scale), isa.splat(offset)),
                };
                self.tile.write(isa, (index, i * LANES), y);
            }
        }
    }
}

struct CombineRows<'a, 't> {
    operation: Operation,
    left: (&'a [f32], usize),
    right: (&'a [f32], usize, usize),
    tile: OutputTile<'t>,
}

impl SimdOp for CombineRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let (left, left_stride) = self.left;
        let (right, right_stride, repeat) = self.right;
        for (index, row) in self.tile.cell.rows.clone().enumerate() {
            let columns = self.tile.cell.columns.clone();
            let left = &left[row * left_stride..][columns.clone()];
            let right = &right[row / repeat * right_stride..][columns];
            for (i, (a, b)) in left.chunks(LANES).zip(right.chunks(LANES)).enumerate() {
                let (a, b) = (isa.read(a), isa.read(b));
                let y = match self.operation {
                    Operation::Add => isa.add(a, b),
                    Operation::Sub => isa.sub(a, b),
                    Operation::Mul => isa.mul(a, b),
                    Operation::Geglu => isa.mul(a, math::gelu(isa, b)),
                };
                self.tile.write(isa, (index, i * LANES), y);
            }
        }
    }
}
