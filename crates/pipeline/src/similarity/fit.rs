//! How well pictures fit the prompts that they were drawn from.

/// The judgement of one CLIP on many pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// The mean similarity of a picture and its own prompt, from −1 to 1.
    pub similarity: f64,
    /// R-precision (Xu et al. 2018, AttnGAN): the share of pictures that are nearer to their own prompt than to every other;
    /// none where there is no other.
    pub r_precision: Option<f64>,
}

impl Fit {
    /// The judgement on pictures, each with the place of its own prompt among different ones; all embeddings have length 1.
    ///
    /// A picture that is as near to another prompt counts as drawn from the other, so that a CLIP that cannot tell prompts
    /// apart does not praise.
    pub fn new(pictures: &[(Vec<f32>, usize)], prompts: &[Vec<f32>]) -> Self {
        let (mut sum, mut first) = (0.0, 0.0);
        for (picture, own) in pictures {
            let near = dot(picture, &prompts[*own]);
            let mut others = prompts.iter().enumerate().filter(|(place, _)| place != own);
            sum += near;
            first += f64::from(u8::from(others.all(|(_, other)| dot(picture, other) < near)));
        }
        let count = pictures.len() as f64;
        let r_precision = (prompts.len() > 1).then(|| first / count);
        Self { similarity: sum / count, r_precision }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::Fit;

    #[test]
    fn pictures_name_their_prompts() {
        let prompts = [vec![1.0, 0.0], vec![0.0, 1.0], vec![-1.0, 0.0]];
        let pictures = [(vec![0.8, 0.6], 0), (vec![0.8, 0.6], 1), (vec![-0.6, 0.8], 1)];
        let fit = Fit::new(&pictures, &prompts);
        assert!((fit.similarity - 2.2 / 3.0).abs() < 1e-6);
        assert_eq!(fit.r_precision, Some(2.0 / 3.0));
        assert_eq!(Fit::new(&pictures[..1], &prompts[..1]).r_precision, None);
    }

    #[test]
    fn prompts_that_look_the_same_are_not_told_apart() {
        let prompts = [vec![1.0, 0.0], vec![1.0, 0.0]];
        let fit = Fit::new(&[(vec![1.0, 0.0], 0)], &prompts);
        assert_eq!(fit, Fit { similarity: 1.0, r_precision: Some(0.0) });
    }
}
