//! The hook in an agent's settings: current text in, new text out, and the way back.
