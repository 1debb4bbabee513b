package protocol

import "strconv"

// MarshalText gives the name, as bodies carry it.
func (l Language) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText takes a name or a number; what it does not know is [Other].
func (l *Language) UnmarshalText(text []byte) error {
	if n, ok := parseInt(text, 32); ok {
		*l = languageOf(n)
	} else {
		*l = parseLanguage(text)
	}
	return nil
}

// languageOf is the language with a number that came as text.
func languageOf(n int64) Language {
	if n < 0 || n > 255 {
		return Other
	}
	return Language(n)
}

// CMResult is how a message that was pushed by hand was consumed (CMResult).
type CMResult string

// The results, in Java's order.
const (
	CMSuccess        CMResult = "CR_SUCCESS"
	CMLater          CMResult = "CR_LATER"
	CMRollback       CMResult = "CR_ROLLBACK"
	CMCommit         CMResult = "CR_COMMIT"
	CMThrowException CMResult = "CR_THROW_EXCEPTION"
	CMReturnNull     CMResult = "CR_RETURN_NULL"
)

var cmResults = []CMResult{CMSuccess, CMLater, CMRollback, CMCommit, CMThrowException, CMReturnNull}

// UnmarshalText takes a name, or the place of one in Java's list.
func (r *CMResult) UnmarshalText(text []byte) error {
	i, err := strconv.Atoi(string(text))
	switch {
	case err != nil:
		*r = CMResult(text)
	case i >= 0 && i < len(cmResults):
		*r = cmResults[i]
	default:
		return &HeaderError{"consumeResult", string(text), "place in a list of " + strconv.Itoa(len(cmResults)), ErrMalformed}
	}
	return nil
}
