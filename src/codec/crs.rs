//! The `crs` member of GeoJSON files from before RFC 7946: whether their numbers are degrees of longitude and latitude in
//! WGS 84, the one system that is read.

use serde_json::Value;

/// What a `crs` member names, where that is another system than WGS 84 in degrees; of one that cannot be read, its text.
#[must_use]
pub fn foreign(member: &[u8]) -> Option<String> {
    let text = || String::from_utf8_lossy(member).chars().take(100).collect();
    let Ok(crs) = serde_json::from_slice::<Value>(member) else {
        return Some(text());
    };
    if crs.is_null() {
        return None;
    }
    match crs.pointer("/properties/name").and_then(Value::as_str) {
        Some(name) if is_wgs84(name) => None,
        Some(name) => Some(name.to_owned()),
        None => Some(text()),
    }
}

/// `urn:ogc:def:crs:OGC:1.3:CRS84`, `EPSG:4326`, `urn:ogc:def:crs:EPSG::4326` and the like: authority first, code last.
fn is_wgs84(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let parts: Vec<&str> = name
        .split([':', '/', '#'])
        .filter(|part| !part.is_empty())
        .collect();
    match parts.as_slice() {
        [.., "CRS84" | "CRS84H"] => true,
        [before @ .., "4326" | "4979"] => before.contains(&"EPSG"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wgs84_in_degrees_is_at_home() {
        let named =
            |name: &str| format!("{{\"type\":\"name\",\"properties\":{{\"name\":\"{name}\"}}}}");
        for home in [
            "urn:ogc:def:crs:OGC:1.3:CRS84",
            "urn:ogc:def:crs:OGC::CRS84",
            "EPSG:4326",
            "epsg:4326",
            "urn:ogc:def:crs:EPSG::4326",
            "urn:ogc:def:crs:EPSG:6.6:4326",
            "http://www.opengis.net/def/crs/EPSG/0/4326",
        ] {
            assert_eq!(foreign(named(home).as_bytes()), None, "{home}");
        }
        for name in [
            "EPSG:3857",
            "urn:ogc:def:crs:EPSG::4269",
            "urn:ogc:def:crs:EPSG::25832",
            "4326",
        ] {
            assert_eq!(foreign(named(name).as_bytes()).as_deref(), Some(name));
        }
        assert_eq!(foreign(b"null"), None);
        for odd in ["{\"type\":\"link\"}", "{\"type\":", "7"] {
            assert_eq!(foreign(odd.as_bytes()).as_deref(), Some(odd));
        }
    }
}
