/*
 * step.metal - what belongs to no operation of a model.
 */

/* Tokens of a step out of what the step before it chose; where it chose none (below 0), they stay. */
kernel void take_ids(constant mtl_take_ids_args &args [[buffer(0)]], device const int *ids [[buffer(1)]],
                     device const int *rows [[buffer(2)]], device int *tokens [[buffer(3)]],
                     uint i [[thread_position_in_grid]])
{
    if (i >= args.n) return;
    const int row = rows[i];
    if (row >= 0 && ids[row] >= 0) tokens[i] = ids[row];
}
