package golden

import "os"

// Long tells that tests are to run all their cases, also those that compile for minutes and show nothing new: where
// TEST_LONG is set, as in CI.
func Long() bool { return os.Getenv("TEST_LONG") != "" }
