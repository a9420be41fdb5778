/* Template: the table of a variant. Include last. */
const struct sb_kernel_table SB_V16_TABLE = {
    .product = product,
    .add_to_sums = add_to_sums,
    .add_listed = add_listed,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
    .add = add,
    .divide = divide,
    .multiply = multiply,
    .largest = largest,
    .sum_exp = sum_exp,
    .weigh = weigh,
    .argmax = argmax,
    .rope = rope,
    .spin = spin,
    .stream = stream,
};
