package pin

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/ebitengine/purego"
	_ "github.com/eliben/go-sentencepiece"
	_ "github.com/gofrs/flock"
	_ "github.com/gomlx/compute/gobackend"
	_ "github.com/gomlx/compute/support/backendtest"
	_ "github.com/gomlx/go-xla/installer"
	_ "github.com/gomlx/gomlx/core/graph"
	_ "github.com/janpfeifer/must"
	_ "github.com/schollz/progressbar/v3"
	_ "github.com/stretchr/testify/require"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/tools/txtar"
	_ "google.golang.org/protobuf/encoding/protowire"
)
