from $module import ${Part}Config

optimizer = ${Part}Config(lr=1e-5, norm_weight_decay=0)
