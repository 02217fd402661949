package controlbus

import "strings"

// ChannelName names a channel within one environment: the broker it lives on
// and the name that broker knows it by.
type ChannelName struct {
	Env    string `json:"env" yaml:"env"`
	System string `json:"system" yaml:"system"` // messaging.system
	Broker string `json:"broker" yaml:"broker"` // configured broker name
	Name   string `json:"name" yaml:"name"`
}

func (c ChannelName) String() string { return c.Broker + "/" + c.Name }

// MatchPattern says whether a channel name matches a pattern in which * stands
// for any run of characters, dots and slashes included. It is linear in the
// length of the name for any pattern, so a hostile name cannot stall it.
func MatchPattern(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for {
		part, more, star := strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(name, part)
		}
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name, rest = name[i+len(part):], more
	}
}
