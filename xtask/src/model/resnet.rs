//! The residual block of convolutions that the UNet and the VAE share.

use super::list::{BRANCH, List, PLAIN};

/// Channels of one residual block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resnet {
    /// Channels in.
    pub(crate) inputs: usize,
    /// Channels out.
    pub(crate) outputs: usize,
    /// Width of the time embedding, where there is one.
    pub(crate) time: Option<usize>,
}

impl Resnet {
    /// Adds the block's tensors under the name `at`.
    pub(crate) fn list(self, list: &mut List, at: &str) {
        let Resnet { inputs, outputs, time } = self;
        list.norm(&format!("{at}.norm1"), inputs);
        // The activation before it takes a good third of the deviation away.
        list.conv3(&format!("{at}.conv1"), [outputs, inputs], 1.5 * PLAIN);
        if let Some(time) = time {
            list.layer(&format!("{at}.time_emb_proj"), &[outputs, time], PLAIN);
        }
        list.norm(&format!("{at}.norm2"), outputs);
        list.conv3(&format!("{at}.conv2"), [outputs, outputs], BRANCH);
        if inputs != outputs {
            list.layer(&format!("{at}.conv_shortcut"), &[outputs, inputs, 1, 1], PLAIN);
        }
    }
}
