package crd

import (
	"fmt"
	"strings"
)

// signingKeyRules has each rule of SigningKey: a spec that keeps to it, one
// that does not, and what kubectl says of that.
var signingKeyRules = map[string]rule{
	"algorithm is one that there is": {
		accepted: `{algorithm: PS512}`,
		refused:  `{algorithm: none}`,
		want:     `* spec.algorithm: Unsupported value: "none": supported values: "ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "HS256", "HS384", "HS512"` + unchecked,
	},
	"rsaKeySize goes with RSA": {
		accepted: `{algorithm: PS256, rsaKeySize: 4096}`,
		refused:  `{algorithm: ES256, rsaKeySize: 4096}`,
		want:     `spec: Invalid value: rsaKeySize is for RS* and PS* algorithms only: remove it, or choose such an algorithm`,
	},
	"rsaKeySize is a size that is safe": {
		accepted: `{algorithm: RS256, rsaKeySize: 2048}`,
		refused:  `{algorithm: RS256, rsaKeySize: 1024}`,
		want:     `* spec.rsaKeySize: Unsupported value: 1024: supported values: "2048", "3072", "4096"` + unchecked,
	},
	"a secret is never published": {
		accepted: `{algorithm: HS256, jwks: {maxAge: 1m}}`,
		refused:  `{algorithm: HS256, jwks: {configMapName: shop-jwks}}`,
		want:     `spec: Invalid value: jwks.configMapName: an HS* key has no public half to publish: remove it, or choose an asymmetric algorithm`,
	},
	"interval or schedule": {
		accepted: `{rotation: {schedule: "0 3 * * 1", timeZone: Europe/Berlin}}`,
		refused:  `{rotation: {interval: 720h, schedule: "0 3 * * 1"}}`,
		want:     `spec.rotation: Invalid value: set either interval or schedule, not both`,
	},
	"interval leaves time to propagate": {
		accepted: `{rotation: {interval: 38m}}`,
		refused:  `{rotation: {interval: 37m59s}}`,
		want:     `spec: Invalid value: rotation.interval must be at least verifierLag + signerLag + 3*clockSkew: raise it, or lower the lags if they are smaller in your cluster`,
	},
	"the default interval leaves time to propagate": {
		accepted: `{propagation: {verifierLag: 712h}}`,
		refused:  `{propagation: {verifierLag: 720h}}`,
		want:     `spec: Invalid value: rotation.interval must be at least verifierLag + signerLag + 3*clockSkew: raise it, or lower the lags if they are smaller in your cluster`,
	},
	"lags may be small": {
		accepted: `{rotation: {interval: 3s}, maxTokenTTL: 10s, propagation: {verifierLag: 0s, signerLag: 0s, clockSkew: 1s, leeway: 1s}}`,
		refused:  `{rotation: {interval: 2s}, maxTokenTTL: 10s, propagation: {verifierLag: 0s, signerLag: 0s, clockSkew: 1s, leeway: 1s}}`,
		want:     `spec: Invalid value: rotation.interval must be at least verifierLag + signerLag + 3*clockSkew: raise it, or lower the lags if they are smaller in your cluster`,
	},
	"at most sixteen keys verify": {
		accepted: `{rotation: {interval: 1h}, maxTokenTTL: 15h52m}`,
		refused:  `{rotation: {interval: 1h}, maxTokenTTL: 15h53m}`,
		want:     `spec: Invalid value: rotation.interval is too short for maxTokenTTL: more than 16 keys would verify at once; raise the interval or lower maxTokenTTL`,
	},
	"at most sixteen keys verify by the default interval": {
		accepted: `{maxTokenTTL: 11519h}`,
		refused:  `{maxTokenTTL: 11520h}`,
		want:     `spec: Invalid value: rotation.interval is too short for maxTokenTTL: more than 16 keys would verify at once; raise the interval or lower maxTokenTTL`,
	},
	"interval is at least a second": {
		accepted: `{rotation: {interval: 1s}, maxTokenTTL: 1s, propagation: {verifierLag: 0s, signerLag: 0s, clockSkew: 0s, leeway: 0s}}`,
		refused:  `{rotation: {interval: 0s}, maxTokenTTL: 1s, propagation: {verifierLag: 0s, signerLag: 0s, clockSkew: 0s, leeway: 0s}}`,
		want:     "* spec: Invalid value: rotation.interval is too short for maxTokenTTL: more than 16 keys would verify at once; raise the interval or lower maxTokenTTL\n* spec.rotation.interval: Invalid value: \"0s\": interval must be at least 1s",
	},
	"maxTokenTTL is at least a second": {
		accepted: `{maxTokenTTL: 1s}`,
		refused:  `{maxTokenTTL: 0s}`,
		want:     `spec.maxTokenTTL: Invalid value: "0s": maxTokenTTL must be at least 1s`,
	},
	"a duration is not negative": {
		accepted: `{propagation: {signerLag: 90s}}`,
		refused:  `{propagation: {signerLag: -5m}}`,
		want:     `spec.propagation.signerLag: Invalid value: "-5m": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration has a unit": {
		accepted: `{propagation: {verifierLag: 1h30m}}`,
		refused:  `{propagation: {verifierLag: "30"}}`,
		want:     `spec.propagation.verifierLag: Invalid value: "30": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration is a text": {
		accepted: `{maxTokenTTL: 3600s}`,
		refused:  `{maxTokenTTL: 3600}`,
		want:     `* spec.maxTokenTTL: Invalid value: "integer": spec.maxTokenTTL in body must be of type string: "integer"` + unchecked,
	},
	"a duration has no days": {
		accepted: `{rotation: {interval: 720h}}`,
		refused:  `{rotation: {interval: 30d}}`,
		want:     `spec.rotation.interval: Invalid value: "30d": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration has whole seconds": {
		accepted: `{propagation: {clockSkew: 1s}}`,
		refused:  `{propagation: {clockSkew: 500ms}}`,
		want:     `spec.propagation.clockSkew: Invalid value: "500ms": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration is less than 11 years": {
		accepted: `{rotation: {schedule: "0 3 * * 1"}, maxTokenTTL: 99999h}`,
		refused:  `{rotation: {schedule: "0 3 * * 1"}, maxTokenTTL: 100000h}`,
		want:     `spec.maxTokenTTL: Invalid value: "100000h": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a wrong duration is named alone": {
		accepted: `{jwks: {maxAge: 5m}}`,
		refused:  `{jwks: {maxAge: 5 minutes}}`,
		want:     `spec.jwks.maxAge: Invalid value: "5 minutes": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration is not empty": {
		accepted: `{propagation: {leeway: 2m}}`,
		refused:  `{propagation: {leeway: ""}}`,
		want:     `spec.propagation.leeway: Invalid value: "": write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m`,
	},
	"a duration is short": {
		accepted: `{rotation: {interval: 10000h000000m000000s}}`,
		refused:  `{rotation: {interval: 0000000000000000000000720h}}`,
		want:     `* spec.rotation.interval: Too long: may not be more than 24 bytes` + unchecked,
	},
	"policy is one that there is": {
		accepted: `{rotation: {policy: Manual, trigger: now}}`,
		refused:  `{rotation: {policy: Never}}`,
		want:     `* spec.rotation.policy: Unsupported value: "Never": supported values: "Automatic", "Manual"` + unchecked,
	},
	"policy Manual has no interval": {
		accepted: `{rotation: {policy: Manual}}`,
		refused:  `{rotation: {policy: Manual, interval: 720h}}`,
		want:     `spec.rotation: Invalid value: policy Manual rotates on trigger only: remove interval and schedule, or set policy to Automatic`,
	},
	"policy Manual has no schedule": {
		accepted: `{rotation: {policy: Automatic, schedule: "0 3 * * 1"}}`,
		refused:  `{rotation: {policy: Manual, schedule: "0 3 * * 1"}}`,
		want:     `spec.rotation: Invalid value: policy Manual rotates on trigger only: remove interval and schedule, or set policy to Automatic`,
	},
	"timeZone goes with schedule": {
		accepted: `{rotation: {schedule: "0 3 * * 1", timeZone: UTC}}`,
		refused:  `{rotation: {timeZone: Europe/Berlin}}`,
		want:     `spec.rotation: Invalid value: timeZone goes with schedule: remove it, or set schedule`,
	},
	"timeZone is not Local": {
		accepted: `{rotation: {schedule: "0 3 * * 1", timeZone: Pacific/Apia}}`,
		refused:  `{rotation: {schedule: "0 3 * * 1", timeZone: Local}}`,
		want:     `spec.rotation.timeZone: Invalid value: "Local": timeZone Local means another thing on each machine: write an IANA name such as Europe/Berlin`,
	},
	"timeZone is not empty": {
		accepted: `{rotation: {schedule: "0 3 * * 1"}}`,
		refused:  `{rotation: {schedule: "0 3 * * 1", timeZone: ""}}`,
		want:     `spec.rotation.timeZone: Invalid value: "": spec.rotation.timeZone in body should be at least 1 chars long`,
	},
	"timeZone is short": {
		accepted: `{rotation: {schedule: "0 3 * * 1", timeZone: America/Argentina/ComodRivadavia}}`,
		refused:  fmt.Sprintf(`{rotation: {schedule: "0 3 * * 1", timeZone: %s}}`, strings.Repeat("Z", 65)),
		want:     `* spec.rotation.timeZone: Too long: may not be more than 64 bytes` + unchecked,
	},
	"schedule has no time zone in it": {
		accepted: `{rotation: {schedule: "0 3 * * MON"}}`,
		refused:  `{rotation: {schedule: "CRON_TZ=Europe/Berlin 0 3 * * 1"}}`,
		want:     `spec.rotation.schedule: Invalid value: "CRON_TZ=Europe/Berlin 0 3 * * 1": write the time zone into timeZone, not into schedule`,
	},
	"schedule is not empty": {
		accepted: `{rotation: {schedule: "* * * * *"}}`,
		refused:  `{rotation: {schedule: ""}}`,
		want:     `spec.rotation.schedule: Invalid value: "": spec.rotation.schedule in body should be at least 1 chars long`,
	},
	"schedule is short": {
		accepted: fmt.Sprintf(`{rotation: {schedule: "%s * * * *"}}`, strings.Repeat("1,", 59)+"01"),
		refused:  fmt.Sprintf(`{rotation: {schedule: "%s * * * *"}}`, strings.Repeat("1,", 60)+"1"),
		want:     `* spec.rotation.schedule: Too long: may not be more than 128 bytes` + unchecked,
	},
	"trigger is short": {
		accepted: fmt.Sprintf(`{rotation: {trigger: %s}}`, strings.Repeat("t", 128)),
		refused:  fmt.Sprintf(`{rotation: {trigger: %s}}`, strings.Repeat("t", 129)),
		want:     `* spec.rotation.trigger: Too long: may not be more than 128 bytes` + unchecked,
	},
	"leeway covers clockSkew": {
		accepted: `{propagation: {clockSkew: 2m, leeway: 2m}}`,
		refused:  `{propagation: {clockSkew: 2m}}`,
		want:     `spec.propagation: Invalid value: leeway must be at least clockSkew: otherwise clocks that differ by the skew refuse valid tokens; raise leeway`,
	},
	"maxAge is at most verifierLag": {
		accepted: `{jwks: {maxAge: 30m}}`,
		refused:  `{jwks: {maxAge: 31m}}`,
		want:     `spec: Invalid value: jwks.maxAge must be at most propagation.verifierLag: a verifier may hold a document that long`,
	},
	"issuer is short": {
		accepted: fmt.Sprintf(`{issuer: "https://%s"}`, strings.Repeat("a", 504)),
		refused:  fmt.Sprintf(`{issuer: "https://%s"}`, strings.Repeat("a", 505)),
		want:     `* spec.issuer: Too long: may not be more than 512 bytes` + unchecked,
	},
	"a keyring's name is kept for keyrings (Secret)": {
		accepted: `{signer: {secretName: shop-keyring-signing}}`,
		refused:  `{signer: {secretName: shop-keyring}}`,
		want:     `spec.signer.secretName: Invalid value: "shop-keyring": names that end in -keyring are kept for keyrings: choose another name`,
	},
	"a keyring's name is kept for keyrings (ConfigMap)": {
		accepted: `{jwks: {configMapName: shop-jwks}}`,
		refused:  `{jwks: {configMapName: shop-keyring}}`,
		want:     `spec.jwks.configMapName: Invalid value: "shop-keyring": names that end in -keyring are kept for keyrings: choose another name`,
	},
	"an output has a name that an object can have": {
		accepted: `{signer: {secretName: shop.signing-2}}`,
		refused:  `{signer: {secretName: Shop_Signing}}`,
		want:     `spec.signer.secretName: Invalid value: "Shop_Signing": use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit`,
	},
	"an output has a name": {
		accepted: `{signer: {}}`,
		refused:  `{signer: {secretName: ""}}`,
		want:     "* spec.signer.secretName: Invalid value: \"\": spec.signer.secretName in body should be at least 1 chars long\n* spec.signer.secretName: Invalid value: \"\": use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit",
	},
	"an output has a short name": {
		accepted: fmt.Sprintf(`{signer: {secretName: %s}}`, strings.Repeat("s", 253)),
		refused:  fmt.Sprintf(`{signer: {secretName: %s}}`, strings.Repeat("s", 254)),
		want:     `* spec.signer.secretName: Too long: may not be more than 253 bytes` + unchecked,
	},
	"the controller's labels are its own": {
		accepted: `{signer: {template: {labels: {team: shop}}}}`,
		refused:  `{signer: {template: {labels: {keywright.dev/signing-key: other}}}}`,
		want:     `spec.signer.template.labels: Invalid value: keywright.dev/ labels are set by the controller: remove them`,
	},
	"the controller's annotations are its own": {
		accepted: `{signer: {template: {annotations: {reloader.example/reload: "true"}}}}`,
		refused:  `{signer: {template: {annotations: {keywright.dev/signing-key: other}}}}`,
		want:     `spec.signer.template.annotations: Invalid value: keywright.dev/ annotations are set by the controller: remove them`,
	},
	"a template has few labels": {
		accepted: fmt.Sprintf(`{signer: {template: {labels: {%s}}}}`, entries(32)),
		refused:  fmt.Sprintf(`{signer: {template: {labels: {%s}}}}`, entries(33)),
		want:     `* spec.signer.template.labels: Too many: 33: must have at most 32 items` + unchecked,
	},
	"a template has few annotations": {
		accepted: fmt.Sprintf(`{signer: {template: {annotations: {%s}}}}`, entries(32)),
		refused:  fmt.Sprintf(`{signer: {template: {annotations: {%s}}}}`, entries(33)),
		want:     `* spec.signer.template.annotations: Too many: 33: must have at most 32 items` + unchecked,
	},
	"allowedNamespaces.from is one that there is": {
		accepted: `{allowedNamespaces: {from: All}}`,
		refused:  `{allowedNamespaces: {from: Some}}`,
		want:     `* spec.allowedNamespaces.from: Unsupported value: "Some": supported values: "Same", "All", "Selector"` + unchecked,
	},
	"from Selector needs a selector": {
		accepted: `{allowedNamespaces: {from: Selector, selector: {matchLabels: {team: shop}}}}`,
		refused:  `{allowedNamespaces: {from: Selector}}`,
		want:     `spec.allowedNamespaces: Invalid value: selector goes with from: Selector, and from: Selector needs one`,
	},
	"selector goes with from Selector": {
		accepted: `{allowedNamespaces: {from: Same}}`,
		refused:  `{allowedNamespaces: {selector: {matchLabels: {team: shop}}}}`,
		want:     `spec.allowedNamespaces: Invalid value: selector goes with from: Selector, and from: Selector needs one`,
	},
	"deletionPolicy is one that there is": {
		accepted: `{deletionPolicy: Delete}`,
		refused:  `{deletionPolicy: Orphan}`,
		want:     `* spec.deletionPolicy: Unsupported value: "Orphan": supported values: "Retain", "Delete"` + unchecked,
	},
	"historyLimit is not negative": {
		accepted: `{historyLimit: 0}`,
		refused:  `{historyLimit: -1}`,
		want:     `spec.historyLimit: Invalid value: -1: spec.historyLimit in body should be greater than or equal to 0`,
	},
	"historyLimit is small": {
		accepted: `{historyLimit: 100}`,
		refused:  `{historyLimit: 101}`,
		want:     `spec.historyLimit: Invalid value: 101: spec.historyLimit in body should be less than or equal to 100`,
	},
	"evidence of gates may be left out": {
		accepted: `{propagation: {evidence: {gates: false}}}`,
		refused:  `{propagation: {evidence: {gates: maybe}}}`,
		want:     `* spec.propagation.evidence.gates: Invalid value: "string": spec.propagation.evidence.gates in body must be of type boolean: "string"` + unchecked,
	},
	"evidence's URLs are https": {
		accepted: `{propagation: {evidence: {urls: ["https://auth.shop.example/keys?of=shop"]}}}`,
		refused:  `{propagation: {evidence: {urls: ["http://auth.shop.example/keys"]}}}`,
		want:     `spec.propagation.evidence.urls: Invalid value: urls: write whole https URLs, such as https://auth.example.com/.well-known/jwks.json`,
	},
	"evidence's URLs are whole": {
		accepted: `{propagation: {evidence: {urls: ["https://192.0.2.1:8443/keys", "https://[2001:db8::1]/keys"]}}}`,
		refused:  `{propagation: {evidence: {urls: ["https://auth.shop.example/keys", "/keys"]}}}`,
		want:     `spec.propagation.evidence.urls: Invalid value: urls: write whole https URLs, such as https://auth.example.com/.well-known/jwks.json`,
	},
	"evidence's URLs name a host": {
		accepted: `{propagation: {evidence: {urls: []}}}`,
		refused:  `{propagation: {evidence: {urls: ["https:///keys"]}}}`,
		want:     `spec.propagation.evidence.urls: Invalid value: urls: write whole https URLs, such as https://auth.example.com/.well-known/jwks.json`,
	},
	"evidence has each URL once": {
		accepted: `{propagation: {evidence: {urls: ["https://a.example", "https://b.example"]}}}`,
		refused:  `{propagation: {evidence: {urls: ["https://a.example", "https://a.example"]}}}`,
		want:     `spec.propagation.evidence.urls[1]: Duplicate value: "https://a.example"`,
	},
	"evidence is looked for at eight URLs at most": {
		accepted: fmt.Sprintf(`{propagation: {evidence: {urls: [%s]}}}`, repeat(8, `"https://%d.example"`)),
		refused:  fmt.Sprintf(`{propagation: {evidence: {urls: [%s]}}}`, repeat(9, `"https://%d.example"`)),
		want:     `* spec.propagation.evidence.urls: Too many: 9: must have at most 8 items` + unchecked,
	},
	"evidence's URLs are short": {
		accepted: fmt.Sprintf(`{propagation: {evidence: {urls: ["https://a.example/%s"]}}}`, strings.Repeat("p", 494)),
		refused:  fmt.Sprintf(`{propagation: {evidence: {urls: ["https://a.example/%s"]}}}`, strings.Repeat("p", 495)),
		want:     `* spec.propagation.evidence.urls[0]: Too long: may not be more than 512 bytes` + unchecked,
	},
	"no URL shows a secret": {
		accepted: `{algorithm: HS256, propagation: {evidence: {gates: true, urls: []}}}`,
		refused:  `{algorithm: HS256, propagation: {evidence: {urls: ["https://auth.shop.example/keys"]}}}`,
		want:     `spec: Invalid value: propagation.evidence.urls: no public document shows an HS* key: remove them, or choose an asymmetric algorithm`,
	},
	// CEL reserves the word import: a rule that says self.import instead of
	// self.__import__ cannot be bounded, and the API server refuses the CRD.
	"import names a Secret": {
		accepted: `{import: {secretName: legacy}}`,
		refused:  `{import: {keyID: legacy}}`,
		want:     `* spec.import.secretName: Required value` + unchecked,
	},
	"import's secretName is not empty": {
		accepted: `{import: {secretName: s}}`,
		refused:  `{import: {secretName: ""}}`,
		want:     `spec.import.secretName: Invalid value: "": spec.import.secretName in body should be at least 1 chars long`,
	},
	"import's secretName is short": {
		accepted: fmt.Sprintf(`{import: {secretName: %s}}`, strings.Repeat("s", 253)),
		refused:  fmt.Sprintf(`{import: {secretName: %s}}`, strings.Repeat("s", 254)),
		want:     `* spec.import.secretName: Too long: may not be more than 253 bytes` + unchecked,
	},
	"import's keyID is printable": {
		accepted: `{import: {secretName: legacy, keyID: "2019-03/key:#1~!"}}`,
		refused:  `{import: {secretName: legacy, keyID: "2019 03"}}`,
		want:     `spec.import.keyID: Invalid value: "2019 03": keyID: use printable ASCII without spaces, exactly as the tokens' kid has it`,
	},
	"import's keyID is ASCII": {
		accepted: `{import: {secretName: legacy, keyID: schluessel}}`,
		refused:  `{import: {secretName: legacy, keyID: schlüssel}}`,
		want:     `spec.import.keyID: Invalid value: "schlüssel": keyID: use printable ASCII without spaces, exactly as the tokens' kid has it`,
	},
	"import's keyID has no line break at its end": {
		accepted: `{import: {secretName: legacy, keyID: ""}}`,
		refused:  `{import: {secretName: legacy, keyID: "legacy\n"}}`,
		want:     `spec.import.keyID: Invalid value: "legacy\n": keyID: use printable ASCII without spaces, exactly as the tokens' kid has it`,
	},
	"import's keyID is short": {
		accepted: fmt.Sprintf(`{import: {secretName: legacy, keyID: %s}}`, strings.Repeat("k", 256)),
		refused:  fmt.Sprintf(`{import: {secretName: legacy, keyID: %s}}`, strings.Repeat("k", 257)),
		want:     `* spec.import.keyID: Too long: may not be more than 256 bytes` + unchecked,
	},
	"withoutKeyID is true or false": {
		accepted: `{import: {secretName: legacy, withoutKeyID: true}}`,
		refused:  `{import: {secretName: legacy, withoutKeyID: "yes"}}`,
		want:     `* spec.import.withoutKeyID: Invalid value: "string": spec.import.withoutKeyID in body must be of type boolean: "string"` + unchecked,
	},
	"a revoked key is listed once": {
		accepted: `{revokedKeys: [{keyID: a, reason: Compromised}, {keyID: b}]}`,
		refused:  `{revokedKeys: [{keyID: a, reason: Compromised}, {keyID: a}]}`,
		want:     `spec.revokedKeys[1]: Duplicate value: {"keyID":"a"}`,
	},
	"128 keys are revoked at most": {
		accepted: fmt.Sprintf(`{revokedKeys: [%s]}`, repeat(128, "{keyID: k%d}")),
		refused:  fmt.Sprintf(`{revokedKeys: [%s]}`, repeat(129, "{keyID: k%d}")),
		want:     `* spec.revokedKeys: Too many: 129: must have at most 128 items` + unchecked,
	},
	"a revoked key has an ID": {
		accepted: `{revokedKeys: [{keyID: a}]}`,
		refused:  `{revokedKeys: [{reason: Compromised}]}`,
		want:     `* spec.revokedKeys[0].keyID: Required value` + unchecked,
	},
	"a revoked key's ID is not empty": {
		accepted: `{revokedKeys: []}`,
		refused:  `{revokedKeys: [{keyID: ""}]}`,
		want:     `spec.revokedKeys[0].keyID: Invalid value: "": spec.revokedKeys[0].keyID in body should be at least 1 chars long`,
	},
	"a revoked key's ID is short": {
		accepted: fmt.Sprintf(`{revokedKeys: [{keyID: %s}]}`, strings.Repeat("k", 256)),
		refused:  fmt.Sprintf(`{revokedKeys: [{keyID: %s}]}`, strings.Repeat("k", 257)),
		want:     `* spec.revokedKeys[0].keyID: Too long: may not be more than 256 bytes` + unchecked,
	},
	"the reason of a revoked key is short": {
		accepted: fmt.Sprintf(`{revokedKeys: [{keyID: a, reason: %s}]}`, strings.Repeat("r", 256)),
		refused:  fmt.Sprintf(`{revokedKeys: [{keyID: a, reason: %s}]}`, strings.Repeat("r", 257)),
		want:     `* spec.revokedKeys[0].reason: Too long: may not be more than 256 bytes` + unchecked,
	},
	"revokeCreatedBefore has a time": {
		accepted: `{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z", reason: Compromised}}`,
		refused:  `{revokeCreatedBefore: {reason: Compromised}}`,
		want:     `* spec.revokeCreatedBefore.time: Required value` + unchecked,
	},
	"revokeCreatedBefore has a time with a zone": {
		accepted: `{revokeCreatedBefore: {time: "2026-03-01T13:00:00+01:00"}}`,
		refused:  `{revokeCreatedBefore: {time: "2026-03-01 12:00"}}`,
		want:     `* spec.revokeCreatedBefore.time: Invalid value: "2026-03-01 12:00": spec.revokeCreatedBefore.time in body must be of type date-time: "2026-03-01 12:00"` + unchecked,
	},
	"the reason of revokeCreatedBefore is short": {
		accepted: fmt.Sprintf(`{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z", reason: %s}}`, strings.Repeat("r", 256)),
		refused:  fmt.Sprintf(`{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z", reason: %s}}`, strings.Repeat("r", 257)),
		want:     `* spec.revokeCreatedBefore.reason: Too long: may not be more than 256 bytes` + unchecked,
	},
	"a field that there is not": {
		accepted: `{algorithm: ES256}`,
		refused:  `{algorithmm: ES256}`,
		want:     `Error from server (BadRequest): error when creating "FILE": SigningKey in version "v1alpha1" cannot be handled as a SigningKey: strict decoding error: unknown field "spec.algorithmm"`,
	},
}

// signingKeyChanges has each rule that looks at what was there before.
var signingKeyChanges = map[string]change{
	"jwks.configMapName stays": {
		before:  `{jwks: {configMapName: one}}`,
		refused: `{jwks: {configMapName: two}}`,
		want:    `spec: Invalid value: jwks.configMapName cannot be changed or removed once set: readers of the old one would be left behind; create a new SigningKey instead`,
	},
	"jwks.configMapName is not removed": {
		before:  `{jwks: {configMapName: one}}`,
		refused: `{jwks: {maxAge: 1m}}`,
		want:    `spec: Invalid value: jwks.configMapName cannot be changed or removed once set: readers of the old one would be left behind; create a new SigningKey instead`,
	},
	"jwks is not removed with it": {
		before:  `{jwks: {configMapName: one}}`,
		refused: `{}`,
		want:    `spec: Invalid value: jwks.configMapName cannot be changed or removed once set: readers of the old one would be left behind; create a new SigningKey instead`,
	},
	"signer.secretName stays": {
		before:  `{signer: {secretName: one}}`,
		refused: `{signer: {secretName: two}}`,
		want:    `spec: Invalid value: signer.secretName cannot be changed: signers that read the old Secret would be left behind; create a new SigningKey instead`,
	},
	"signer.secretName is not removed": {
		before:  `{signer: {secretName: one}}`,
		refused: `{signer: {template: {labels: {a: b}}}}`,
		want:    `spec: Invalid value: signer.secretName cannot be changed: signers that read the old Secret would be left behind; create a new SigningKey instead`,
	},
	"signer is not removed with it": {
		before:  `{signer: {secretName: one}}`,
		refused: `{}`,
		want:    `spec: Invalid value: signer.secretName cannot be changed: signers that read the old Secret would be left behind; create a new SigningKey instead`,
	},
	"signer.secretName is not set later": {
		before:  `{signer: {template: {labels: {a: b}}}}`,
		refused: `{signer: {secretName: two}}`,
		want:    `spec: Invalid value: signer.secretName cannot be changed: signers that read the old Secret would be left behind; create a new SigningKey instead`,
	},
	"import is not added later": {
		before:  `{}`,
		refused: `{import: {secretName: legacy}}`,
		want:    `spec: Invalid value: import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead`,
	},
	"import's Secret stays": {
		before:  `{import: {secretName: legacy}}`,
		refused: `{import: {secretName: other}}`,
		want:    `spec: Invalid value: import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead`,
	},
	"import's keyID is not added later": {
		before:  `{import: {secretName: legacy}}`,
		refused: `{import: {secretName: legacy, keyID: k}}`,
		want:    `spec: Invalid value: import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead`,
	},
	"import's keyID stays": {
		before:  `{import: {secretName: legacy, keyID: k}}`,
		refused: `{import: {secretName: legacy, keyID: l}}`,
		want:    `spec: Invalid value: import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead`,
	},
	"import's withoutKeyID stays": {
		before:  `{import: {secretName: legacy, keyID: k, withoutKeyID: true}}`,
		refused: `{import: {secretName: legacy, keyID: k, withoutKeyID: false}}`,
		want:    `spec: Invalid value: import is for a new SigningKey: it can be removed but neither added nor changed later; create a new SigningKey instead`,
	},
}

// signingKeyEdits are allowed.
var signingKeyEdits = map[string]change{
	"jwks.configMapName set later":      {before: `{jwks: {maxAge: 1m}}`, accepted: `{jwks: {configMapName: one, maxAge: 1m}}`},
	"jwks with configMapName set later": {before: `{}`, accepted: `{jwks: {configMapName: one}}`},
	"what is beside the names changes":  {before: `{signer: {secretName: one}, jwks: {configMapName: one}}`, accepted: `{signer: {secretName: one, template: {labels: {a: b}}}, jwks: {configMapName: one, maxAge: 1m}}`},
	"a template comes and goes":         {before: `{signer: {template: {labels: {a: b}}}}`, accepted: `{}`},
	"the algorithm changes":             {before: `{algorithm: RS256, rsaKeySize: 2048}`, accepted: `{algorithm: EdDSA}`},
	"interval becomes schedule":         {before: `{rotation: {interval: 100h}}`, accepted: `{rotation: {schedule: "0 3 * * 1"}}`},
	"import is removed":                 {before: `{import: {secretName: legacy, keyID: k, withoutKeyID: true}}`, accepted: `{}`},
	"what is beside import changes":     {before: `{import: {secretName: legacy}}`, accepted: `{import: {secretName: legacy}, maxTokenTTL: 2h}`},
	"a revoked key is added":            {before: `{revokedKeys: [{keyID: a}]}`, accepted: `{revokedKeys: [{keyID: a, reason: Lost}, {keyID: b}]}`},
	"a revoked key is removed":          {before: `{revokedKeys: [{keyID: a}, {keyID: b}]}`, accepted: `{revokedKeys: [{keyID: b}]}`},
	"revokeCreatedBefore is set later":  {before: `{}`, accepted: `{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z"}}`},
	"revokeCreatedBefore goes back":     {before: `{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z"}}`, accepted: `{revokeCreatedBefore: {time: "2025-03-01T12:00:00Z"}}`},
	"revokeCreatedBefore is removed":    {before: `{revokeCreatedBefore: {time: "2026-03-01T12:00:00Z"}}`, accepted: `{}`},
}
