//! The gate: nothing runs without people's consent.
//!
//! An action becomes a rendered plan, a plan a proposal, a proposal an approval with a token that lives 15
//! minutes, is used once and is bound to that plan; the used token becomes a permit, and only a permit runs.
