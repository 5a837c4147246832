package grammar

import (
	"maps"
	"slices"
	"strings"
)

// Parts of the formats.
const (
	fullDate = `(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))` +
		`|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)`
	fullTime = `(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])`
	byteOf   = `(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	hostname = `[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?){0,4}`
	count    = `[0-9]{1,6}`
	days     = count + `D|` + count + `M(?:` + count + `D)?|` + count + `Y(?:` + count + `M(?:` + count + `D)?)?`
	hours    = count + `S|` + count + `M(?:` + count + `S)?|` + count + `H(?:` + count + `M(?:` + count + `S)?)?`
)

// formats are the values of format, as regular expressions of whole texts. Each is a part of what the
// standards allow, the one that is commonly written: RFC 3339 without leap seconds, addresses without
// comments and quotes, host names of at most five short parts, URIs of http and https.
var formats = map[string]string{
	"date":      fullDate,
	"time":      fullTime,
	"date-time": fullDate + `T` + fullTime,
	"duration":  `P(?:` + count + `W|(?:` + days + `)(?:T(?:` + hours + `))?|T(?:` + hours + `))`,
	"uuid":      `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`,
	"email":     `[A-Za-z0-9_+-]{1,32}(?:\.[A-Za-z0-9_+-]{1,15}){0,2}@` + hostname,
	"hostname":  hostname,
	"ipv4":      byteOf + `(?:\.` + byteOf + `){3}`,
	"ipv6":      ipv6(),
	"uri":       `https?://` + hostname + `(?::[1-9][0-9]{0,3})?(?:/(?:[A-Za-z0-9._~-]|%[0-9A-F]{2}){0,60}){0,8}(?:\?[A-Za-z0-9._~=&-]{0,128})?(?:#[A-Za-z0-9._~-]{0,64})?`,
}

// ipv6 is eight groups, of which :: may replace one or more.
func ipv6() string {
	const group = `[0-9a-fA-F]{1,4}`
	all := []string{group + `(?::` + group + `){7}`}
	for before := range 8 {
		left := ""
		if before > 0 {
			left = group + strings.Repeat(`:`+group, before-1)
		}
		for after := range 8 - before {
			right := ""
			if after > 0 {
				right = group + strings.Repeat(`:`+group, after-1)
			}
			all = append(all, left+`::`+right)
		}
	}
	return strings.Join(all, `|`)
}

func formatNames() string { return strings.Join(slices.Sorted(maps.Keys(formats)), ", ") }
