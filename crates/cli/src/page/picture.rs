//! Pictures inside the page.

use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pipeline::Picture;

use crate::output;

/// Pixels of the longer side that are shown.
const SHOWN: usize = 256;

/// A picture as an address, made smaller where it is large.
pub(super) fn data_url(picture: &Picture) -> Result<String> {
    let png = output::encode(&smaller(picture), "")?;
    Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)))
}

/// Means of square blocks, as large as needed.
fn smaller(picture: &Picture) -> Picture {
    let block = picture.width.max(picture.height).div_ceil(SHOWN).max(1);
    let (width, height) = (picture.width / block, picture.height / block);
    let mean = |x: usize, y: usize, channel: usize| {
        let inside = (0..block * block).map(|i| {
            let (x, y) = (x * block + i % block, y * block + i / block);
            u32::from(picture.rgb[(y * picture.width + x) * 3 + channel])
        });
        (inside.sum::<u32>() / (block * block) as u32) as u8
    };
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            rgb.extend((0..3).map(|channel| mean(x, y, channel)));
        }
    }
    Picture { width, height, rgb }
}

#[cfg(test)]
mod tests {
    use super::{SHOWN, smaller};
    use pipeline::Picture;

    #[test]
    fn large_pictures_become_means_of_blocks() {
        let (width, height) = (2 * SHOWN, 4);
        let rgb = (0..width * height * 3).map(|i| if i / 3 % 2 == 0 { 10 } else { 20 }).collect();
        let shown = smaller(&Picture { width, height, rgb });
        assert_eq!((shown.width, shown.height), (SHOWN, 2));
        assert!(shown.rgb.iter().all(|&x| x == 15));
        let small = Picture { width: 1, height: 1, rgb: vec![1, 2, 3] };
        assert_eq!(smaller(&small), small);
    }
}
