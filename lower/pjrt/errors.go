package pjrt

import (
	"errors"
	"fmt"
)

// ErrDestroyed says that an object was used after its Destroy, or after its client's.
var ErrDestroyed = errors.New("pjrt: used after Destroy")

// Error is an error made by the plugin.
type Error struct {
	Op      string    // C function, such as PJRT_Client_Compile, or the work an event stood for
	Code    ErrorCode // as in absl::Status
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %s", e.Op, e.Code, e.Message) }

// Is makes errors.Is(err, &Error{Code: ErrorCodeNOTFOUND}) match by code. A target with an Op or
// a Message matches nothing but itself.
func (e *Error) Is(target error) bool {
	x, ok := target.(*Error)
	return ok && x.Code == e.Code && x.Op == "" && x.Message == ""
}

var codeNames = [...]string{
	ErrorCodeOK: "ok", ErrorCodeCANCELLED: "cancelled", ErrorCodeUNKNOWN: "unknown",
	ErrorCodeINVALIDARGUMENT: "invalid argument", ErrorCodeDEADLINEEXCEEDED: "deadline exceeded",
	ErrorCodeNOTFOUND: "not found", ErrorCodeALREADYEXISTS: "already exists",
	ErrorCodePERMISSIONDENIED: "permission denied", ErrorCodeRESOURCEEXHAUSTED: "resource exhausted",
	ErrorCodeFAILEDPRECONDITION: "failed precondition", ErrorCodeABORTED: "aborted",
	ErrorCodeOUTOFRANGE: "out of range", ErrorCodeUNIMPLEMENTED: "unimplemented",
	ErrorCodeINTERNAL: "internal", ErrorCodeUNAVAILABLE: "unavailable",
	ErrorCodeDATALOSS: "data loss", ErrorCodeUNAUTHENTICATED: "unauthenticated",
}

// String names the code in words.
func (c ErrorCode) String() string {
	if c < 0 || int(c) >= len(codeNames) {
		return fmt.Sprintf("code %d", int32(c))
	}
	return codeNames[c]
}

// takeError copies and destroys a PJRT_Error; nil for a null one.
func (p *Plugin) takeError(op string, h errorHandle) error {
	if h == 0 {
		return nil
	}
	m := errorMessageArgs{error: h}
	p.errorMessage(&m)
	c := errorGetCodeArgs{error: h}
	if err := p.errorGetCode(&c); err != nil {
		c.code = ErrorCodeUNKNOWN
	}
	e := &Error{op, c.code, goString(m.message, m.messageSize)}
	p.errorDestroy(&errorDestroyArgs{error: h})
	return e
}
