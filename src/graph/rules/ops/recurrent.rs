//! Recurrent layers: LSTM, GRU and RNN, and the LSTM that quantises as it goes.
//!
//! Separate because their batch axis is not the first: data is `[time, rows, features]` unless the layout says
//! otherwise, state is `[directions, rows, hidden]`.

use super::super::call::Call;
use super::super::shapes::Item;
use super::super::value::{Lay, Made, Value, mixes, unknown};

/// Inputs after the sequence lengths that hold a state.
const STATES: [usize; 2] = [5, 6];

/// LSTM, GRU, RNN.
pub(super) fn recurrent<'a>(call: &Call<'_, 'a>) -> Made<'a> {
    let states = if call.node.op_type() == "LSTM" { STATES.as_slice() } else { &[5] };
    call.only(&[&[0, 4], states].concat())?;
    let rows_first = call.int("layout", 0) != 0;
    let (data_axis, state_axis) = if rows_first { (0, 0) } else { (1, 1) };
    let dims = call.dims(0)?;
    let recurrence = call.dims(2)?;
    let ([time, rows, _], [directions, _, hidden]) = (dims, recurrence) else {
        return unknown("its data or weights do not have three axes");
    };
    let (time, rows) = if rows_first { (rows, time) } else { (time, rows) };
    let lay = call.lay(0)?;
    match lay {
        Some(lay) if lay.axis == 1 - data_axis => {
            return mixes(format!("the batch axis of '{}' is its time axis", call.name(0)));
        }
        Some(lay) if lay.axis == 2 => {
            return mixes(format!("the batch axis of '{}' is its feature axis", call.name(0)));
        }
        Some(lay) if !lay.is_plain() => return unknown("rows are folded into its batch"),
        _ => {}
    }
    let carried = std::iter::once((4, 0)).chain(states.iter().map(|&state| (state, state_axis)));
    for (index, axis) in carried.filter(|(index, _)| call.has(*index)) {
        if call.lay(index)? != lay.map(|_| Lay::plain(axis)).as_ref() {
            return unknown(format!("'{}' does not carry rows as its data does", call.name(index)));
        }
    }
    let (time, rows) = (time.clone(), rows.clone());
    let (directions, hidden) = (directions.clone(), hidden.clone());
    let (sequence, state): (Vec<Item>, Vec<Item>) = if rows_first {
        let sequence = vec![rows.clone(), time, directions.clone(), hidden.clone()];
        (sequence, vec![rows, directions, hidden])
    } else {
        let sequence = vec![time, directions.clone(), rows.clone(), hidden.clone()];
        (sequence, vec![directions, rows, hidden])
    };
    let place = |axis: usize| lay.map(|_| Lay::plain(axis));
    let sequence = Value::placed(place(if rows_first { 0 } else { 2 }), sequence)?;
    let state = Value::placed(place(state_axis), state)?;
    Ok(std::iter::once(sequence)
        .chain(std::iter::repeat(state))
        .take(call.node.output.len())
        .collect())
}
