//! What a vision tower sees of a picture: `CLIPImageProcessor`.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde_json::Value;

use crate::files::Files;
use crate::model::json;
use crate::{Error, Picture};

/// How a picture becomes numbers.
pub(super) struct Preprocess {
    resize: Resize,
    /// Pixels of a side of what is cut out of the middle.
    side: usize,
    mean: [f32; 3],
    deviation: [f32; 3],
}

/// The size before the middle is cut out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resize {
    /// The shorter side has so many pixels.
    Shortest(usize),
    /// Width and height.
    To([usize; 2]),
}

impl Preprocess {
    /// Read `preprocessor_config.json`, or take CLIP's own values.
    pub(super) fn read(files: &Files, side: usize) -> Result<Self, Error> {
        let name = "preprocessor_config.json";
        let there = files.read(name).is_ok_and(|file| file.is_some());
        let config = if there { json(files, name)? } else { Value::Null };
        let fault = |field: &str| Error::Folder {
            path: files.path(name),
            fault: format!("{field} is not one that CLIP's image processor has"),
        };
        let number = |value: &Value| value.as_u64().map(|n| n as usize).filter(|n| *n > 0);
        let size = &config["size"];
        let resize = match (number(size), number(&size["shortest_edge"])) {
            _ if size.is_null() => Resize::Shortest(side),
            (Some(edge), _) | (None, Some(edge)) => Resize::Shortest(edge),
            (None, None) => match (number(&size["width"]), number(&size["height"])) {
                (Some(width), Some(height)) => Resize::To([width, height]),
                _ => return Err(fault("size")),
            },
        };
        let triple = |field: &str, usual: [f32; 3]| -> Result<[f32; 3], Error> {
            let Some(numbers) = config[field].as_array() else { return Ok(usual) };
            let numbers = numbers.iter().map(|x| x.as_f64().map(|x| x as f32));
            let numbers: Option<Vec<f32>> = numbers.collect();
            numbers.and_then(|n| n.try_into().ok()).ok_or_else(|| fault(field))
        };
        let mean = triple("image_mean", [0.481_454_66, 0.457_827_5, 0.408_210_73])?;
        let deviation = triple("image_std", [0.268_629_54, 0.261_302_6, 0.275_777_1])?;
        Ok(Self { resize, side, mean, deviation })
    }

    /// `[side, side, 3]`.
    pub(super) fn pixels(&self, picture: &Picture) -> Result<Vec<f32>, Error> {
        let [width, height] = match self.resize {
            Resize::To(size) => size,
            // The longer side is rounded down, as in transformers.
            Resize::Shortest(edge) => {
                let shorter = picture.width.min(picture.height).max(1);
                [picture.width, picture.height].map(|side| edge * side / shorter)
            }
        };
        let rgb = resized(picture, [width, height])?;
        let (left, top) =
            (width.saturating_sub(self.side) / 2, height.saturating_sub(self.side) / 2);
        let mut pixels = Vec::with_capacity(self.side * self.side * 3);
        for y in 0..self.side {
            for x in 0..self.side {
                for channel in 0..3 {
                    // Beyond a picture that is too small there is black.
                    let (x, y) = (x + left, y + top);
                    let inside = x < width && y < height;
                    let level = if inside { rgb[(y * width + x) * 3 + channel] } else { 0 };
                    let value = f32::from(level) / 255.0;
                    pixels.push((value - self.mean[channel]) / self.deviation[channel]);
                }
            }
        }
        Ok(pixels)
    }
}

/// Bicubic, with wider filters where it becomes smaller, as Pillow does it.
fn resized(picture: &Picture, [width, height]: [usize; 2]) -> Result<Vec<u8>, Error> {
    if [width, height] == [picture.width, picture.height] {
        return Ok(picture.rgb.clone());
    }
    let fault = |error: String| Error::Request(format!("a picture cannot be resized: {error}"));
    let size = |side: usize| u32::try_from(side).map_err(|e| fault(e.to_string()));
    let (from, to) = ([size(picture.width)?, size(picture.height)?], [size(width)?, size(height)?]);
    let source = ImageRef::new(from[0], from[1], &picture.rgb, PixelType::U8x3)
        .map_err(|error| fault(error.to_string()))?;
    let mut out = Image::new(to[0], to[1], PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let done = Resizer::new().resize(&source, &mut out, &options);
    done.map_err(|error| fault(error.to_string()))?;
    Ok(out.into_vec())
}
