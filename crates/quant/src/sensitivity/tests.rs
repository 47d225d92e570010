//! Files of scores: written, cut off, put together, and faulty.

use super::{Component, Effect, Header, Of, Record, Sensitivity, Shard, VERSION};

/// One prompt with these formats and layers of a UNet.
pub(crate) fn header_of(formats: &[&str], layers: &[&str]) -> Header {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Header {
        version: VERSION,
        of: Of::Network,
        model: "m".into(),
        fingerprint: 5,
        calibrated: None,
        prompts: vec!["a \"fox\"".into()],
        pictures: 1,
        seed: 0,
        width: 64,
        height: 64,
        steps: 1,
        guidance: 0.0,
        real_first_token: false,
        components: vec![Component {
            name: "unet".into(),
            formats: owned(formats),
            layers: owned(layers),
        }],
        rounding: Effect { sqnr: 40.5, ssim: Some(0.9) },
        places: None,
        shard: None,
    }
}

fn measured(shard: Option<Shard>) -> Sensitivity {
    let mut header = Header { shard, ..header_of(&["float", "w8a8"], &["conv_in", "conv_out"]) };
    let encoder = Component {
        name: "text_encoder".into(),
        formats: ["float", "w8a16", "w8a8"].map(str::to_owned).into(),
        layers: vec!["fc1".into()],
    };
    header.components.insert(0, encoder);
    let records = header.entries().into_iter().map(|(place, format)| {
        let (component, layer) = header.layer(place).unwrap();
        Record {
            component: component.name.clone(),
            layer: layer.to_owned(),
            place,
            format: format.to_owned(),
            bytes: 100,
            weights: 50,
            effect: Effect { sqnr: 1.0 / (place + format.len()) as f64, ssim: None },
            inferred: false,
        }
    });
    let records = records.collect();
    Sensitivity { header, records }
}

#[test]
fn layers_are_counted_through_all_components() {
    let header = measured(None).header;
    let at = |place| header.layer(place).map(|(of, layer)| (of.name.as_str(), layer));
    assert_eq!(at(0), Some(("text_encoder", "fc1")));
    assert_eq!(at(2), Some(("unet", "conv_out")));
    assert_eq!((at(3), header.count(), header.entries().len()), (None, 3, 7));
}

#[test]
fn some_layers_are_of_all_parts_and_of_all_roles() {
    // Blocks of five, and as many parts: at equal distances, all layers would be the first of their blocks.
    let names: Vec<String> = (0..40).map(|layer| layer.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let header = header_of(&["float", "w8a8"], &names);
    let places = header.spread(8);
    assert!(places.iter().enumerate().all(|(part, place)| place / 5 == part), "{places:?}");
    let roles: std::collections::BTreeSet<usize> = places.iter().map(|place| place % 5).collect();
    assert!(roles.len() > 3, "{places:?}");
    assert_eq!(header.spread(50), (0..40).collect::<Vec<_>>());
}

#[test]
fn what_was_written_is_read_back() {
    let whole = measured(None);
    let text = whole.to_text();
    assert_eq!(Sensitivity::from_text(&text).unwrap(), (whole, text.len()));
}

#[test]
fn shards_are_put_together_to_the_same_bytes() {
    let whole = measured(None).to_text();
    let shards: Vec<Sensitivity> =
        ["1/2", "2/2"].map(|shard| measured(Some(shard.parse().unwrap()))).into();
    assert!(shards.iter().all(Sensitivity::is_complete));
    assert_eq!(Sensitivity::merge(&shards).unwrap().to_text(), whole);
    let turned = [shards[1].clone(), shards[0].clone(), shards[0].clone()];
    assert_eq!(Sensitivity::merge(&turned).unwrap().to_text(), whole);
    let fault = Sensitivity::merge(&shards[..1]).unwrap_err().to_string();
    assert!(fault.contains("`conv_in`"), "{fault}");
    let mut other = shards[1].clone();
    other.header.seed = 7;
    let fault = Sensitivity::merge(&[shards[0].clone(), other]).unwrap_err().to_string();
    assert!(fault.contains("shard 1/2 and shard 2/2 were not measured alike"), "{fault}");
}

#[test]
fn a_file_that_was_cut_off_goes_on_after_its_last_line() {
    let whole = measured(None);
    let text = whole.to_text();
    let first = text.find('\n').unwrap() + 1;
    for cut in first..text.len() {
        let (found, length) = Sensitivity::from_text(&text[..cut]).unwrap();
        assert!(!found.is_complete());
        assert_eq!(found.to_text(), text[..length]);
    }
}

#[test]
fn faults_are_named() {
    let fault = |text: &str| Sensitivity::from_text(text).unwrap_err();
    assert!(fault("").contains("first line"));
    assert!(fault("{\"version\":9}\n").contains("version 9"));
    let text = measured(None).to_text();
    let lines: Vec<&str> = text.lines().collect();
    let swapped = [lines[0], lines[2], lines[1], ""].join("\n");
    assert!(
        fault(&swapped).contains("line 2: fc1 of text_encoder as w8a16 is not due"),
        "{}",
        fault(&swapped)
    );
    assert!("0/2".parse::<Shard>().is_err() && "3/2".parse::<Shard>().is_err());
    assert!("2".parse::<Shard>().unwrap_err().contains("1/4"));
}
