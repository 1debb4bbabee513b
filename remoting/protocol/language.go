package protocol

import (
	"slices"
	"strings"
)

// Language is what the sender of a command is written in (LanguageCode).
type Language uint8

// The languages by number. Java 4.9 ends at Rust.
const (
	Java Language = iota
	CPP
	DotNet
	Python
	Delphi
	Erlang
	Ruby
	Other
	HTTP
	Go
	PHP
	OMS
	Rust
	NodeJS
)

var languageNames = [...]string{"JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP", "OMS", "RUST", "NODE_JS"}

// String is the name on the wire. A number without a name is OTHER: a name that Java does not know
// breaks its connection listings.
func (l Language) String() string {
	if int(l) < len(languageNames) {
		return languageNames[l]
	}
	return languageNames[Other]
}

// ParseLanguage finds a language by its name, in any case; an unknown one is [Other].
func ParseLanguage(name string) Language {
	i := slices.IndexFunc(languageNames[:], func(n string) bool { return strings.EqualFold(n, name) })
	if i < 0 {
		return Other
	}
	return Language(i)
}

func parseLanguage(name []byte) Language {
	for i, n := range languageNames {
		if string(name) == n {
			return Language(i)
		}
	}
	return ParseLanguage(string(name))
}
